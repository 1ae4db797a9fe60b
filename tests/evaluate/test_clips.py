import numpy as np
import pytest

from vis_jax.evaluate.clips import clip_starts, clips_of


@pytest.mark.parametrize(
    ("count", "length", "stride", "expected"),
    [
        (7, 3, 2, [0, 2, 4]),
        (8, 3, 2, [0, 2, 4, 5]),  # the last one is shifted back
        (3, 3, 2, [0]),
        (2, 3, 1, [0]),
        (4, 3, 1, [0, 1]),
        (9, 8, 5, [0, 1]),
    ],
)
def test_the_last_clip_ends_with_the_video(count, length, stride, expected):
    assert clip_starts(count, length, stride) == expected


@pytest.mark.parametrize("count", [1, 3, 4, 8, 11])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_frame_is_final_in_the_last_clip_that_has_it(count, stride):
    frames = [np.full((5, 6, 3), t + 1, np.uint8) for t in range(count)]
    read, final = [], []

    def noted():
        for t, frame in enumerate(frames):
            read.append(t)
            yield frame

    for clip, done in clips_of(noted(), count, length=3, stride=stride):
        assert (clip.images.shape, clip.images.dtype) == ((3, 32, 32, 3), np.uint8)
        assert clip.size.tolist() == [5, 6]
        ids = np.arange(clip.start, min(clip.start + 3, count))
        assert clip.frame_valid.tolist() == [i < len(ids) for i in range(3)]
        np.testing.assert_array_equal(clip.images[: len(ids), 0, 0, 0], ids + 1)
        assert not clip.images[len(ids) :].any()
        assert not clip.images[:, 5:].any()
        assert len(read) == ids[-1] + 1  # no frame is read before it is needed
        final += range(int(clip.start), int(clip.start) + done)
    assert final == list(range(count))

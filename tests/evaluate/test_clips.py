import itertools

import numpy as np
import pytest

from vis_jax.evaluate.clips import bucket, pieces_of, place_frames, read_pieces
from vis_jax.results.clock import NO_CLOCK, Clock
from vis_jax.structures import Window
from vis_jax.systems.system import TestSettings, window_of


def _images(count):
    return [np.full((5, 6, 3), t + 1, np.uint8) for t in range(count)]


def _starts(count, window):
    pieces = pieces_of(_images(count), window, (5, 6))
    return [int(piece.clip.start) for piece in pieces]


@pytest.mark.parametrize(
    ("length", "expected"), [(1, 8), (8, 8), (9, 24), (24, 24), (25, 48), (49, 72)]
)
def test_the_least_bucket_or_a_multiple_of_the_largest(length, expected):
    assert bucket(length, (24, 8)) == expected


@pytest.mark.parametrize(
    ("count", "length", "stride", "expected"),
    [
        (7, 3, 2, [0, 2, 4]),
        (8, 3, 2, [0, 2, 4, 5]),  # overlapping: the last one is shifted back
        (3, 3, 2, [0]),
        (2, 3, 1, [0]),
        (4, 3, 1, [0, 1]),
        (9, 8, 5, [0, 1]),
        (8, 3, 3, [0, 3, 6]),  # not overlapping: it is padded
        (9, 3, 3, [0, 3, 6]),
        (2, 1, 1, [0, 1]),
        (0, 3, 3, []),
    ],
)
def test_where_clips_begin(count, length, stride, expected):
    assert _starts(count, Window(length, stride)) == expected


@pytest.mark.parametrize("count", [1, 3, 4, 8, 11])
@pytest.mark.parametrize(("stride", "delay"), [(1, 0), (2, 0), (3, 0), (3, 2), (2, 4)])
def test_every_frame_is_final_once(count, stride, delay):
    read, final, lasts = [], [], []

    def noted():
        for t, image in enumerate(_images(count)):
            read.append(t)
            yield image

    window = Window(3, stride, delay)
    for piece in pieces_of(noted(), window, (50, 60)):
        clip = piece.clip
        assert (clip.images.shape, clip.images.dtype) == ((3, 32, 32, 3), np.uint8)
        assert clip.size.tolist() == [5, 6]
        assert piece.sizes == ((32, 32), (5, 6), (50, 60))
        ids = np.arange(clip.start, min(clip.start + 3, count))
        assert clip.frame_valid.tolist() == [i < len(ids) for i in range(3)]
        np.testing.assert_array_equal(clip.images[: len(ids), 0, 0, 0], ids + 1)
        assert not clip.images[len(ids) :].any()
        assert not clip.images[:, 5:].any()
        # No frame is read before it is needed to know where the next one begins.
        assert len(read) <= ids[-1] + 1 + (1 if stride == 3 else stride)
        assert piece.first == clip.start - delay
        assert piece.rows <= 3 + delay
        final += range(piece.first, piece.first + piece.rows)
        lasts.append(bool(clip.last))
    assert [t for t in final if t >= 0] == list(range(count))
    assert lasts == [False] * (len(lasts) - 1) + [True]


def test_clips_with_gaps_between_them_are_an_error():
    with pytest.raises(ValueError, match="window.stride: expected 1 .. 3, .* got 4"):
        list(pieces_of(_images(5), Window(3, 4), (5, 6)))


def test_a_whole_video_is_one_padded_clip():
    window = Window(None, None, buckets=(4, 8))
    (piece,) = pieces_of(_images(5), window, (5, 6))
    assert piece.clip.images.shape == (8, 32, 32, 3)
    assert piece.clip.frame_valid.sum() == piece.rows == 5
    assert piece.clip.last
    assert list(pieces_of([], window, (5, 6))) == []


def test_frames_are_resized_as_they_are_read_and_nobody_counts_them():
    test = TestSettings(short_side=10, mode="clip", clip_length=2)
    clock = Clock()
    endless = itertools.cycle(_images(3))
    pieces = read_pieces(endless, window_of(test), test, clock)
    first, second = itertools.islice(pieces, 2)
    assert first.sizes == ((32, 32), (10, 12), (5, 6))
    assert second.clip.start == 2
    assert clock.seconds["reading"] > 0
    stretched = TestSettings(size=(40, 20), mode="clip", clip_length=2)
    (piece,) = read_pieces(_images(1), window_of(stretched), stretched, clock)
    assert piece.sizes == ((64, 32), (40, 20), (5, 6))


@pytest.mark.parametrize(
    ("original", "canvases", "expected"),
    [
        ((480, 640), (), ((90, 120), (96, 128))),
        # The least canvas that holds the frame.
        ((480, 640), ((128, 128), (96, 160), (64, 96)), ((90, 120), (96, 160))),
        # None holds it: it shrinks on the canvas that leaves it largest.
        ((480, 640), ((64, 64), (96, 96)), ((72, 96), (96, 96))),
        ((640, 480), ((64, 128),), ((64, 48), (64, 128))),
    ],
)
def test_frames_are_placed_on_a_canvas_there_is(original, canvases, expected):
    place = place_frames(original, TestSettings(short_side=90), canvases, multiple=32)
    assert place == expected


def test_frames_are_padded_to_their_canvas():
    test = TestSettings(short_side=5)
    (piece,) = read_pieces(_images(1), window_of(test), test, NO_CLOCK, [(32, 64)])
    assert piece.clip.images.shape[1:] == (32, 64, 3)
    assert piece.sizes.canvas == (32, 64)
    assert tuple(piece.clip.size) == piece.sizes.content == (5, 6)
    assert not piece.clip.images[0, 5:].any()
    assert not piece.clip.images[0, :, 6:].any()
    np.testing.assert_array_equal(piece.clip.images[0, :5, :6], _images(1)[0])
    patches = window_of(test)._replace(multiple=28)
    (piece,) = read_pieces(_images(1), patches, test, NO_CLOCK)
    assert piece.clip.images.shape[1:] == (28, 28, 3)
    (piece,) = pieces_of(_images(1), patches, (5, 6))
    assert piece.sizes.canvas == (28, 28)

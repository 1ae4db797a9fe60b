import re
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vis_jax.predict.sinks import VideoSink
from vis_jax.predict.sources import FOLDER_FPS, PredictError, open_source

SIZE = (40, 64)  # height, width


def _frame(t, size=SIZE):
    """A grey level that tells the frame, and a red upper left quarter."""
    frame = np.full((*size, 3), (30 + 20 * t) % 256, np.uint8)
    frame[: size[0] // 2, : size[1] // 2] = (220, 20, 30)
    return frame


def _write_video(path, frames=6, options=None):
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=Fraction(30_000, 1001))
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for t in range(frames):
            image = av.VideoFrame.from_ndarray(_frame(t), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def _write_images(folder, names, size=SIZE):
    folder.mkdir(exist_ok=True)
    for t, name in enumerate(names):
        Image.fromarray(_frame(t, size)).save(folder / name)
    return folder


def test_a_video_file_is_read_twice(tmp_path):
    source = open_source(_write_video(tmp_path / "clip.mp4"))
    assert (source.name, source.num_frames, source.live) == ("clip", None, False)
    assert (source.height, source.width) == SIZE
    assert source.fps == Fraction(30_000, 1001)
    first, second = list(source), list(source)
    seconds = [frame.seconds for frame in source.read()]
    np.testing.assert_allclose(seconds, np.arange(6) * 1001 / 30_000, atol=1e-4)
    assert [frame.shape for frame in first] == [(*SIZE, 3)] * 6
    levels = [int(frame[35, 60].mean()) for frame in first]
    np.testing.assert_allclose(levels, 30 + 20 * np.arange(6), atol=4)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["index.mp4", "duration.mkv"])
def test_a_video_file_says_how_many_frames_it_has(tmp_path, name):
    source = open_source(_write_video(tmp_path / name, frames=9))
    assert (source.num_frames, source.likely_frames) == (None, 9)
    folder = open_source(_write_images(tmp_path / "frames", ["0.png", "1.png"]))
    assert folder.likely_frames == 2


def test_our_videos_keep_their_colours(tmp_path):
    frame = np.tile(np.array([200, 30, 60], np.uint8), (*SIZE, 1))
    path = tmp_path / "clip.mp4"
    with VideoSink(path, fps=Fraction(5), height=SIZE[0], width=SIZE[1]) as video:
        video.write(frame)
    (back,) = open_source(path)
    np.testing.assert_allclose(back[20, 30], frame[20, 30], atol=4)


def test_a_rotated_video_is_turned_upright(tmp_path):
    path = _write_video(tmp_path / "phone.mp4", frames=2)
    content = bytearray(path.read_bytes())
    # ISO 14496-12, 8.3.2: the matrix follows 36 bytes of other fields of version 0.
    start = content.find(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", content[start : start + 36])[0] == 1 << 16
    clockwise = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *clockwise)
    path.write_bytes(content)
    source = open_source(path)
    assert (source.height, source.width) == SIZE[::-1]
    frame = next(iter(source))
    assert frame.shape == (*SIZE[::-1], 3)
    # The upper left corner is now the upper right one.
    assert frame[10, 35, 0] > 180 and frame[10, 5, 0] < 60


def test_a_folder_is_sorted_by_number(tmp_path):
    names = ["frame1.png", "frame2.png", "frame10.png"]
    folder = _write_images(tmp_path / "dog", names)
    (folder / "notes.txt").write_text("not a frame")
    source = open_source(folder)
    assert source.file_names == tuple(names)
    assert (source.name, source.fps) == ("dog", FOLDER_FPS)
    for _ in range(2):
        np.testing.assert_array_equal(list(source), [_frame(t) for t in range(3)])


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "webp", "JPG"])
def test_image_formats(tmp_path, suffix):
    source = open_source(_write_images(tmp_path / "f", [f"0.{suffix}"]))
    (frame,) = source
    np.testing.assert_allclose(frame[35, 60], 30, atol=6)


def test_images_turned_by_exif_and_images_with_transparency(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(_frame(0)).save(tmp_path / "a.png", exif=exif)
    transparent = Image.fromarray(_frame(1, SIZE[::-1])).convert("RGBA")
    transparent.save(tmp_path / "b.png")
    source = open_source(tmp_path)
    assert (source.height, source.width) == SIZE[::-1]
    first, second = source
    np.testing.assert_array_equal(first, np.rot90(_frame(0), -1))
    np.testing.assert_array_equal(second, _frame(1, SIZE[::-1]))


def test_a_glob_of_images_of_one_image_and_of_one_video(tmp_path):
    folder = _write_images(tmp_path / "dog", ["0.png", "1.png", "2.jpg"])
    source = open_source(str(folder / "*.png"))
    assert (source.name, source.file_names) == ("dog", ("0.png", "1.png"))
    assert open_source(folder / "1.png").num_frames == 1
    _write_video(tmp_path / "clip.mp4", frames=2)
    assert len(list(open_source(str(tmp_path / "*.mp4")))) == 2


def test_a_path_with_brackets_is_no_glob(tmp_path):
    folder = _write_images(tmp_path / "take [2]", ["0.png"])
    assert open_source(folder).name == "take [2]"


def test_nothing_there(tmp_path):
    with pytest.raises(PredictError, match=r"no\.mp4: no such file or folder"):
        open_source(tmp_path / "no.mp4")
    with pytest.raises(PredictError, match=r"\*\.jpg: matches no file"):
        open_source(str(tmp_path / "*.jpg"))
    with pytest.raises(PredictError, match="expected images .* found none"):
        open_source(tmp_path)


def test_a_glob_of_several_videos(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    with pytest.raises(PredictError, match=r"one video file, got 2 files.*a\.mp4"):
        open_source(str(tmp_path / "*.mp4"))


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"", "the file is empty"), (b"not a video at all" * 100, "Invalid data found")],
)
def test_a_file_that_is_no_video(tmp_path, content, cause):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    message = rf"^{re.escape(str(path))}: not a readable video: {cause}"
    with pytest.raises(PredictError, match=message):
        open_source(path)


def test_a_truncated_video(tmp_path):
    path = _write_video(tmp_path / "clip.mp4")
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-400])  # without the index at the end
    message = (
        f"not a readable video: truncated: expected {size} bytes, got {size - 400}"
    )
    with pytest.raises(PredictError, match=message):
        open_source(path)


@pytest.mark.parametrize("share", [0.4, 0.8, 0.99])
def test_a_truncated_video_with_its_index_in_front(tmp_path, share):
    path = _write_video(tmp_path / "clip.mp4", options={"movflags": "faststart"})
    content = path.read_bytes()
    start = content.find(b"mdat") + 4
    path.write_bytes(content[: start + int(share * (len(content) - start))])
    with pytest.raises(PredictError, match=r"clip\.mp4: truncated: expected \d+ bytes"):
        open_source(path)


def test_a_file_with_sound_only(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = np.zeros((1, 4096), np.float32)
        sound = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(PredictError, match=r"song\.mp4: has no video stream"):
        open_source(path)


def test_frames_of_different_sizes(tmp_path):
    folder = _write_images(tmp_path / "dog", ["0.png", "1.png"])
    _write_images(folder, ["2.png"], size=(40, 62))
    with pytest.raises(
        PredictError, match=r"2\.png: .*first frame, 40 x 64 .*got 40 x 62"
    ):
        open_source(folder)


def test_images_that_cannot_be_read(tmp_path):
    folder = tmp_path
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    for name in ("0.jpg", "1.jpg"):
        Image.fromarray(noise).save(folder / name)
    content = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(content[: len(content) // 2])
    source = open_source(folder)  # the header is whole
    with pytest.raises(PredictError, match=r"1\.jpg: not a readable image: .*trunc"):
        list(source)
    (folder / "1.jpg").write_bytes(b"no image")
    with pytest.raises(PredictError, match=r"1\.jpg: not a readable image"):
        open_source(folder)


def test_images_of_16_bits_are_not_clipped(tmp_path):
    Image.fromarray(np.full(SIZE, 1000, np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(PredictError, match=r"0\.png: expected 8 bits a channel"):
        open_source(tmp_path)

"""Sources of predict as cameras, recorders and strangers make them."""

import io
import os
import re
import struct
from fractions import Fraction
from pathlib import Path, PurePath

import av
import numpy as np
import pytest
from PIL import Image

from data_pipeline.convert.source_folder import SourceFolder
from data_pipeline.file_names import natural_order
from vis_jax.predict import complete, video_file
from vis_jax.predict.loop import warning_lines
from vis_jax.predict.sinks import VideoSink
from vis_jax.predict.sources import FOLDER_FPS, PredictError, open_source
from vis_jax.predict.writer import RequestedOutputs

SIZE = (48, 64)  # height, width
ONE = 1 << 16


def _frame(t):
    """No orientation of it looks like another."""
    frame = np.full((*SIZE, 3), 30 + 4 * t, np.uint8)
    frame[:16, :16], frame[:16, 32:], frame[32:, :16] = (
        250,
        (200, 20, 20),
        (10, 10, 200),
    )
    return frame


def _video(path, *, frames=10, rate=25, codec="libx264", muxer=None, options=None):
    with av.open(str(path.absolute()), "w", format=muxer, options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 10
        for t in range(frames):
            image = av.VideoFrame.from_ndarray(_frame(t), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def _count(path):
    return len(list(open_source(path)))


def _images(folder, names):
    folder.mkdir(exist_ok=True)
    for t, name in enumerate(names):
        Image.fromarray(_frame(t)).save(folder / name)
    return folder


def _set_matrix(path, a, b, c, d):
    content = bytearray(path.read_bytes())
    # ISO 14496-12, 8.3.2: the matrix follows 36 bytes of other fields of version 0.
    start = content.find(b"tkhd") + 4 + 40
    matrix = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)


ORIENTATIONS = {  # a, b, c, d of the matrix, and what ffmpeg's filters of this name do
    "none": ((1, 0, 0, 1), lambda x: x),
    "hflip": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "vflip": ((1, 0, 0, -1), lambda x: x[::-1]),
    "hflip,vflip": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "transpose=clock": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "transpose=cclock": ((0, -1, 1, 0), lambda x: np.rot90(x)),
    "transpose=cclock_flip": ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
    "transpose=clock_flip": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_eight_orientations_of_a_display_matrix(tmp_path, name):
    (a, b, c, d), upright = ORIENTATIONS[name]
    path = _video(tmp_path / "a.mp4", frames=2)
    expected = [upright(frame) for frame in open_source(path)]
    _set_matrix(path, a * ONE, b * ONE, c * ONE, d * ONE)
    source = open_source(path)
    assert (source.height, source.width) == expected[0].shape[:2]
    np.testing.assert_array_equal(list(source), expected)
    # The definition: column p, row q are shown at column a p + c q, row b p + d q.
    (found, _), (plain, _) = list(source), [upright(x) for x in (_frame(0), _frame(1))]
    np.testing.assert_allclose(found[8, 8], plain[8, 8], atol=12)
    p, q = 8, 40  # of the blue corner
    shown = (b * p + d * q) % found.shape[0], (a * p + c * q) % found.shape[1]
    np.testing.assert_allclose(found[shown], _frame(0)[q, p], atol=12)


def test_other_display_matrices_are_refused_and_zeros_ignored(tmp_path):
    path = _video(tmp_path / "a.mp4", frames=1)
    _set_matrix(path, 46341, 46341, -46341, 46341)
    with pytest.raises(PredictError, match=r"a\.mp4: display matrix: expected quarter"):
        open_source(path)
    _set_matrix(path, 0, 0, 0, 0)
    assert (open_source(path).height, open_source(path).width) == SIZE


@pytest.mark.parametrize("name", ["12:30:05.mp4", "http:a.mp4", "a b%03d.mp4"])
def test_names_that_look_like_addresses(tmp_path, monkeypatch, name):
    _video(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for source in (name, f"./{name}", str(tmp_path / name)):
        assert _count(source) == 10
    with VideoSink(Path(f"out:{name}"), fps=Fraction(5), height=4, width=4) as sink:
        sink.write(np.zeros((4, 4, 3), np.uint8))
    assert (tmp_path / f"out:{name}").exists()


def test_a_playlist_cannot_reach_the_network(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(PredictError, match=r"clip\.mp4: "):
        open_source(path)


def _song(path):
    jpeg = io.BytesIO()
    Image.fromarray(_frame(0)).save(jpeg, "JPEG")
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = *SIZE, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        silence = np.zeros((1, 4096), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        image = av.VideoFrame.from_ndarray(_frame(0), format="rgb24")
        for packet in cover.encode(image.reformat(format="yuvj420p")):
            container.mux(packet)
        container.mux(cover.encode(None))
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def test_the_cover_of_a_song_is_no_video(tmp_path):
    path = _song(tmp_path / "song.m4a")
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        assert stream.disposition & av.stream.Disposition.attached_pic
    with pytest.raises(PredictError, match=r"song\.m4a: has no video stream"):
        open_source(path)


@pytest.mark.parametrize("suffix", ["webp", "png", "tif"])
def test_an_animation_is_no_still_image(tmp_path, suffix):
    first, *rest = [Image.fromarray(_frame(t)) for t in range(10)]
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=rest, lossless=True)
    with pytest.raises(PredictError, match=r"a\.\w+: expected a still .* 10 frames"):
        open_source(path)
    with pytest.raises(PredictError, match=r"a\.\w+: expected a still .* 10 frames"):
        open_source(tmp_path)


@pytest.mark.parametrize("suffix, kind", [("gif", "GIF"), ("apng", "PNG")])
def test_an_animation_read_as_video(tmp_path, suffix, kind):
    first, *rest = [Image.fromarray(_frame(t)) for t in range(10)]
    path = tmp_path / f"a.{suffix}"
    first.save(path, kind, save_all=True, append_images=rest, duration=100)
    source = open_source(path)
    assert len(list(source)) == len(list(source)) == 10


def test_two_views_of_a_camera_are_one_image(tmp_path):
    views = [Image.fromarray(_frame(t)) for t in range(2)]
    views[0].save(tmp_path / "0.jpg", "MPO", save_all=True, append_images=views[1:])
    assert open_source(tmp_path).num_frames == 1


def test_rates_that_no_video_is_drawn_at(tmp_path):
    path = _video(tmp_path / "timelapse.mp4", rate=Fraction(1, 120))
    source = open_source(path)
    assert source.fps == Fraction(1, 120)
    (line,) = warning_lines(source, RequestedOutputs())
    assert line == (
        f"{path}: 1/120 frames a second; the drawn video gets 0.01"
        " (expected 0.01 .. 1000; --fps sets it)"
    )
    assert not warning_lines(source, RequestedOutputs(fps=6.0))
    assert not warning_lines(source, RequestedOutputs(formats=("json",)))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "ffv1", {}),
        ("a.webm", "libvpx", {}),
        ("a.avi", "mpeg4", {}),
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mov", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_a_recording_that_is_cut_off(tmp_path, name, codec, options, share):
    path = _video(tmp_path / name, frames=50, codec=codec, options=options)
    assert _count(path) == 50
    content = path.read_bytes()
    end = content.rfind(b"mfra") if name == "a.mov" else len(content)
    path.write_bytes(content[: int(share * end)])
    with pytest.raises(PredictError, match=rf"{re.escape(name)}: (truncated|not a)"):
        open_source(path)


def test_a_live_recording_has_no_size_in_its_header(tmp_path):
    path = _video(tmp_path / "a.mkv", codec="ffv1", options={"live": "1"})
    assert complete.declared_size(path) == 0
    assert _count(path) == 10


@pytest.mark.parametrize(
    "head", [b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x00", b"\x1a\x45\xdf\xa3\x81x\x18"]
)
def test_a_header_that_ends_early(tmp_path, head):
    (tmp_path / "a.mkv").write_bytes(head)
    assert complete.declared_size(tmp_path / "a.mkv") == 0
    with pytest.raises(PredictError, match=r"a\.mkv: not a readable video"):
        open_source(tmp_path / "a.mkv")


def test_lost_packets_are_counted(tmp_path):
    path = _video(tmp_path / "lost.ts", frames=50)
    content = bytearray(path.read_bytes())
    whole = open_source(path)
    assert len(list(whole)) == 50 and not whole.warnings
    # Packets of 188 bytes; the second byte says which stream they belong to.
    count, middle = len(content) // 188, len(content) // 188 // 2
    video = [k for k in range(count) if content[188 * k + 1] & 0x1F == 1]
    start = next(k for k in video if k > middle and content[188 * k + 1] & 0x40)
    del content[188 * (start + 1) : 188 * (start + 2)]
    path.write_bytes(content)
    source = open_source(path)
    for _ in range(2):
        count = len(list(source))
        assert count >= 45
        (line,) = source.warnings
        assert line.startswith(f"{path}: ")
        assert re.search(rf": \d of {count} frames (is|are) damaged", line)


@pytest.mark.parametrize("number", [1, 40])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "ffv1"), ("a.avi", "mpeg4"), ("a.ts", "libx264")],
)
def test_bytes_changed_within_a_video(tmp_path, name, codec, number):
    path = _video(tmp_path / name, frames=20, codec=codec)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(25):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), number):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            source = open_source(path)
            count = len(list(source))
        except PredictError as error:
            assert str(error).startswith(f"{path}")
            continue
        assert len(list(source)) == count


def test_frames_of_several_formats(tmp_path):
    folder = _images(tmp_path / "f", ["0.jpg", "1.tif", "2.tiff", "3.jpg"])
    source = open_source(folder)
    assert source.file_names == ("0.jpg", "1.tif", "2.tiff", "3.jpg")
    levels = [int(frame[40, 40].mean()) for frame in source]
    np.testing.assert_allclose(levels, [30, 34, 38, 42], atol=3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_turned_by_exif_have_the_size_that_is_said(
    tmp_path, suffix, orientation
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_frame(0)).save(tmp_path / f"0.{suffix}", exif=exif)
    source = open_source(tmp_path)
    (frame,) = source
    assert frame.shape == (source.height, source.width, 3)
    assert frame.shape[:2] == (SIZE if orientation < 5 else SIZE[::-1])


@pytest.mark.parametrize("name", ["1.gif", "1.HEIC", "1.avif", "1.jp2", "1.dng"])
def test_a_picture_of_another_ending_among_frames(tmp_path, name):
    folder = _images(tmp_path / "f", ["0.jpg", "2.jpg"])
    (folder / name).write_bytes(b"")
    (folder / "notes.txt").write_text("not a frame")
    with pytest.raises(
        PredictError, match=rf"{re.escape(name)}: expected no images but"
    ):
        open_source(folder)


NAMES = ["IMG_1.JPG", "img_2.jpg", "IMG_3.JPG", "img_10.jpg"]


def test_the_order_of_names_does_not_depend_on_case(tmp_path):
    folder = _images(tmp_path / "f", sorted(NAMES))
    assert open_source(folder).file_names == tuple(NAMES)
    assert open_source(str(folder / "*")).file_names == tuple(NAMES)
    found = SourceFolder(tmp_path, "train").files(folder, ".jpg")
    assert [path.name for path in found] == NAMES


def test_natural_order():
    paths = ["A2/b1", "a2/B10", "a10/b1", "a10/b01", "a" + "9" * 5000, "²", "1", "x/1"]
    expected = [
        "1",
        "A2/b1",
        "a2/B10",
        "a10/b01",
        "a10/b1",
        "a" + "9" * 5000,
        "x/1",
        "²",
    ]
    found = sorted(paths, key=lambda name: natural_order(PurePath(name)))
    assert found == expected


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(PredictError, match=r"pipe\.mp4: .* regular file, got a pipe"):
        open_source(tmp_path / "pipe.mp4")
    with pytest.raises(PredictError, match="/dev/zero: .* regular file, got a device"):
        open_source("/dev/zero")
    folder = _images(tmp_path / "f", ["0.png", "2.png"])
    os.mkfifo(folder / "1.png")
    with pytest.raises(PredictError, match=r"1\.png: .* regular file, got a pipe"):
        open_source(folder)
    os.remove(folder / "1.png")
    os.symlink(folder / "absent.png", folder / "1.png")
    with pytest.raises(PredictError, match=r"1\.png: .* file, got a broken link"):
        open_source(folder)
    os.remove(folder / "1.png")
    (folder / "1.png").mkdir()
    with pytest.raises(PredictError, match=r"1\.png: .* file, got a folder"):
        open_source(folder)


def test_frames_too_large_for_masks(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "MAX_SIDE", 60)
    expected = r"at most 60 pixels a side .* got 48 x 64 \(height x width\)"
    with pytest.raises(PredictError, match=rf"a\.mp4: .*{expected}"):
        open_source(_video(tmp_path / "a.mp4", frames=1))
    with pytest.raises(PredictError, match=rf"0\.png: .*{expected}"):
        open_source(_images(tmp_path / "f", ["0.png"]))


def test_a_folder_has_the_usual_rate(tmp_path):
    assert open_source(_images(tmp_path / "f", ["0.png"])).fps == FOLDER_FPS

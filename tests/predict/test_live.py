"""Sources that are read once, while they are made: no network but this machine."""

import os
import pty
import sys
import threading
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest

from tests.predict.rtsp_server import rtsp_camera
from tests.predict.test_sources import SIZE, _frame, _write_video
from vis_jax.predict import live
from vis_jax.predict.sinks import VideoSink
from vis_jax.predict.sources import FOLDER_FPS, PredictError, from_arrays, open_source

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


@contextmanager
def piped(content):
    """The reading end of a pipe that a thread writes to."""
    reader, writer = os.pipe()

    def write():
        with os.fdopen(writer, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield reader
    finally:
        while os.read(reader, 1 << 20):
            pass
        os.close(reader)
        thread.join()


@contextmanager
def served(content, *, cut=0):
    """The address of a file on a server; `cut` bytes at its end never come."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) - cut])

        def log_message(self, *unused):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live/pond.mkv?key=1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def levels(frames):
    return [round(float(frame[35, 60].mean()) / 20 - 1.5) for frame in frames]


@pytest.mark.parametrize(
    ("name", "options"), [("a.mkv", {}), ("a.mp4", FRAGMENTS), ("a.ts", {})]
)
def test_a_video_on_a_pipe(tmp_path, name, options):
    path = _write_video(tmp_path / name, options=options)
    with piped(path.read_bytes()) as pipe:
        source = live.from_pipe(pipe)
        assert (source.height, source.width) == SIZE
        assert (source.live, source.num_frames, source.name) == (True, None, "stdin")
        assert levels(source) == [0, 1, 2, 3, 4, 5]
        assert source.warnings == []
        with pytest.raises(PredictError, match="can be read only once"):
            list(source.read())


def test_an_mp4_with_its_index_at_the_end_needs_a_file(tmp_path):
    path = tmp_path / "a.mp4"
    rng = np.random.default_rng(0)
    with VideoSink(path, fps=Fraction(5), height=240, width=320) as video:
        for _ in range(20):  # more than FFmpeg keeps to go back to
            video.write(rng.integers(0, 256, (240, 320, 3), np.uint8))
    with piped(path.read_bytes()) as pipe, pytest.raises(PredictError) as caught:
        live.from_pipe(pipe)
    assert "not a readable video" in str(caught.value)
    assert "must come first" in str(caught.value)
    with path.open("rb") as file:
        assert len(list(live.from_pipe(file.fileno()))) == 20


def test_a_pipe_that_is_cut_off_keeps_what_came(tmp_path):
    content = _write_video(tmp_path / "a.mkv", frames=50).read_bytes()
    with piped(content[: len(content) * 3 // 4]) as pipe:
        source = live.from_pipe(pipe)
        assert 0 < len(list(source)) < 50


def test_raw_frames_on_a_pipe():
    frames = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
    with piped(frames.tobytes() + b"rest") as pipe:
        source = live.from_pipe(pipe, raw=SIZE, fps=Fraction(25))
        read = list(source.read())
    np.testing.assert_array_equal([frame.pixels for frame in read], frames)
    assert [frame.seconds for frame in read] == [0, 0.04, 0.08]
    (line,) = source.warnings
    assert "frame 3: expected 7680 bytes, got 4; it is left out" in line


def test_waiting_for_a_pipe_can_be_ended():
    reader, writer = os.pipe()
    source = live.from_pipe(reader, raw=SIZE)
    threading.Timer(0.2, source.stop).start()
    assert list(source) == []  # would wait for ever
    os.close(reader)
    os.close(writer)


def test_a_terminal_is_no_video():
    own, other = pty.openpty()
    with pytest.raises(PredictError, match="expected a video, got a terminal"):
        live.from_pipe(other)
    os.close(own)
    os.close(other)


def test_standard_input(monkeypatch):
    asked, given = [], from_arrays([_frame(0)])

    def from_pipe(*words, **more):
        asked.append((words, more))
        return given

    monkeypatch.setattr(live, "from_pipe", from_pipe)
    assert open_source("-") is given
    assert open_source("-", raw=SIZE, fps=12.5) is given
    assert asked == [
        ((0,), {"raw": None, "fps": None}),
        ((0,), {"raw": SIZE, "fps": Fraction(25, 2)}),
    ]
    with pytest.raises(
        PredictError, match=r"--raw: expected - as the source, got a\.m"
    ):
        open_source("a.mp4", raw=SIZE)


def test_a_stream_of_a_server(tmp_path):
    content = _write_video(tmp_path / "a.mkv").read_bytes()
    with served(content) as address:
        source = open_source(address)
        assert (source.path, source.name) == (address, "pond.mkv")
        assert source.live and source.fps == Fraction(30_000, 1001)
        assert levels(source) == [0, 1, 2, 3, 4, 5]


def test_a_stream_that_breaks_off_ends_there(tmp_path):
    options = {"movflags": "faststart"}
    content = _write_video(tmp_path / "a.mp4", frames=60, options=options).read_bytes()
    with served(content, cut=len(content) // 3) as address:
        source = open_source(address)
        assert 0 < len(list(source)) < 60
    assert all(line.startswith(address) for line in source.warnings)


def test_a_camera_of_a_network():
    with rtsp_camera([_frame(t % 6) for t in range(18)]) as address:
        source = open_source(address)
        assert (source.path, source.name, source.live) == (address, "pond", True)
        assert (source.height, source.width) == SIZE
        frames = list(source.read())
    assert levels(frame.pixels for frame in frames) == [0, 1, 2, 3, 4, 5] * 3
    np.testing.assert_allclose([f.seconds for f in frames], np.arange(18) / 10)


def test_a_server_that_is_not_there():
    with pytest.raises(PredictError, match=r"http://127\.0\.0\.1:9/a\.mp4: not a read"):
        open_source("http://127.0.0.1:9/a.mp4")


def test_a_playlist_of_a_server_cannot_reach_files(tmp_path):
    path = _write_video(tmp_path / "a.ts")
    playlist = f"#EXTM3U\n#EXTINF:1,\nfile://{path}\n#EXT-X-ENDLIST\n"
    with served(playlist.encode()) as address, pytest.raises(PredictError):
        open_source(address.replace("pond.mkv?key=1", "list.m3u8"))


def test_a_camera(monkeypatch):
    fake = live.Camera("lavfi", "testsrc=size=64x40:rate=10:duration={}")
    monkeypatch.setitem(live.CAMERAS, sys.platform, fake)
    source = open_source("camera:2")
    assert (source.path, source.name, source.live) == ("camera:2", "camera2", True)
    assert (source.height, source.width, source.fps) == (*SIZE, 10)
    frames = list(source.read())
    assert len(frames) == 20
    np.testing.assert_allclose([f.seconds for f in frames], np.arange(20) / 10)


def test_frames_that_a_camera_drops_are_counted(monkeypatch):
    """Frames 8 to 10 and 14 never come; it is asked for its frames until the 16th."""
    filters = "testsrc=size=64x40:rate=10,select='not(between(n,8,10)+eq(n,14))'"
    monkeypatch.setitem(live.CAMERAS, sys.platform, live.Camera("lavfi", filters))
    source = open_source("camera:0")
    frames = source.read()
    for _ in range(9):
        seconds = next(frames).seconds
        assert source.warnings == []
    np.testing.assert_allclose(seconds, 1.1)
    for _ in range(9, 16):
        next(frames)
    source.stop()
    expected = "room for 4 more, the first after number 7: they may have been dropped"
    (line,) = source.warnings
    assert line.startswith("camera:0: frame times") and expected in line


def test_times_that_waver_are_no_gap(monkeypatch):
    times = "(N+0.3*mod(N,2))/10/TB"
    filters = f"testsrc=size=64x40:rate=10,settb=1/1000,setpts='{times}'"
    monkeypatch.setitem(live.CAMERAS, sys.platform, live.Camera("lavfi", filters))
    source = open_source("camera:0")
    frames = source.read()
    seconds = [next(frames).seconds for _ in range(40)]
    np.testing.assert_allclose(seconds[:4], [0, 0.13, 0.2, 0.33], atol=2e-3)
    source.stop()
    assert source.warnings == []


def test_a_camera_that_is_not_there(monkeypatch, tmp_path):
    with pytest.raises(PredictError, match="camera:77: not a readable video"):
        open_source("camera:77")
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(PredictError, match="camera:77: no cameras are read on plan9"):
        open_source("camera:77")
    monkeypatch.chdir(tmp_path)
    _write_video(tmp_path / "a.mkv").rename("camera:77")
    assert len(list(open_source("camera:77"))) == 6  # a file of this name


def test_a_device_that_has_no_frame_yet_is_asked_again(tmp_path, monkeypatch):
    content = _write_video(tmp_path / "a.mkv").read_bytes()
    demux, refused = av.container.InputContainer.demux, []

    class Container:
        def __init__(self, container):
            self._container = container
            self.streams = container.streams

        def demux(self, stream):
            if len(refused) < 3:
                refused.append(stream)
                raise av.BlockingIOError(11, "Resource temporarily unavailable")
            yield from demux(self._container, stream)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._container.close()

    plain = av.open
    monkeypatch.setattr(av, "open", lambda *a, **b: Container(plain(*a, **b)))
    with piped(content) as pipe:
        assert levels(live.from_pipe(pipe)) == [0, 1, 2, 3, 4, 5]
    assert len(refused) == 3


def test_arrays_are_a_source():
    frames = np.stack([_frame(t) for t in range(3)])
    for given in (frames, list(frames)):
        source = from_arrays(given, fps=12.5, name="pond")
        assert (source.num_frames, source.live, source.fps) == (3, False, 12.5)
        assert [frame.seconds for frame in source.read()] == [0, 0.08, 0.16]
        for _ in range(2):
            np.testing.assert_array_equal(list(source), frames)
    once = from_arrays(frame for frame in frames)
    assert (once.num_frames, once.live, once.fps) == (None, True, FOLDER_FPS)
    np.testing.assert_array_equal(list(once), frames)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "expected at least one frame, got none"),
        (
            [np.zeros((4, 4), np.uint8)],
            r"frame 0: expected uint8 .* got uint8 \[4, 4\]",
        ),
        ([np.zeros((4, 4, 3))], r"frame 0: expected uint8 .* got float64 \[4, 4, 3\]"),
        ([_frame(0), _frame(0)[1:]], "frame 1: .* 40 x 64 .* got 39 x 64"),
    ],
)
def test_arrays_that_are_no_frames(frames, message):
    with pytest.raises(PredictError, match=message):
        list(from_arrays(frames))


def test_a_list_of_images_keeps_its_order(tmp_path):
    from PIL import Image

    paths = [tmp_path / name for name in ("2.png", "10.png", "1.png")]
    for t, path in enumerate(paths):
        Image.fromarray(_frame(t)).save(path)
    source = open_source([str(path) for path in paths])
    assert source.file_names == ("2.png", "10.png", "1.png")
    assert (source.name, source.num_frames) == (tmp_path.name, 3)
    np.testing.assert_array_equal(list(source), [_frame(t) for t in range(3)])
    with pytest.raises(PredictError, match="expected at least one image"):
        open_source([])
    with pytest.raises(PredictError, match=r"a\.mp4: expected an image"):
        open_source([paths[0], tmp_path / "a.mp4"])

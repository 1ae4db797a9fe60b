"""Videos whose pixels are not square."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from vis_jax.predict import live
from vis_jax.predict.loop import Finder, predict, warning_lines
from vis_jax.predict.sinks import VideoSink
from vis_jax.predict.sources import open_source
from vis_jax.predict.writer import RequestedOutputs
from vis_jax.results.clock import NO_CLOCK
from vis_jax.results.frame import FrameResult, LiveTracks

SIZE = (48, 64)  # height, width
NO_TRACKS = LiveTracks(np.zeros(0, np.int32), np.zeros((0, 1), np.float32))


def _video(path, aspect):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for level in (50, 100):
            pixels = np.full((*SIZE, 3), level, np.uint8)
            image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def _aspect(path):
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        return stream.sample_aspect_ratio


def _nothing(frames, *, clock=NO_CLOCK):
    for t, _ in enumerate(frames):
        yield FrameResult(t, NO_TRACKS, np.zeros(0, int), [])


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("ratio", ["2:1", "10:11"])
def test_the_drawn_video_has_the_same_shape(tmp_path, monkeypatch, codec, ratio):
    monkeypatch.setattr("vis_jax.predict.sinks.CODECS", (codec,))
    aspect = Fraction(ratio.replace(":", "/"))
    path = _video(tmp_path / "wide.mp4", aspect)
    assert _aspect(path) == aspect
    source = open_source(path)
    assert (source.height, source.width) == SIZE  # as they are stored
    for wanted in (RequestedOutputs(), RequestedOutputs(formats=("json",))):
        assert warning_lines(source, wanted) == [
            f"{path}: pixels are not square but {ratio} (width:height); masks and boxes"
            " are those of the stored frames"
        ]
    finder = Finder(_nothing, [(1, "cat")], top=1)
    done = predict(source, tmp_path / "out", finder)
    assert _aspect(done.outputs.video) == aspect


def test_pixels_of_a_video_on_its_side(tmp_path):
    path = _video(tmp_path / "wide.mp4", Fraction(2))
    content = bytearray(path.read_bytes())
    # ISO 14496-12, 8.3.2: the matrix follows 36 bytes of other fields of version 0.
    one, start = 1 << 16, content.find(b"tkhd") + 4 + 40
    matrix = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    source = open_source(path)
    assert (source.height, source.width) == SIZE[::-1]
    assert source.pixel_aspect == Fraction(1, 2)
    with path.open("rb") as file:
        assert live.from_pipe(file.fileno()).pixel_aspect == Fraction(1, 2)


@pytest.mark.parametrize("aspect", [Fraction(1), None])
def test_pixels_that_are_square_or_of_no_known_shape(tmp_path, aspect):
    source = open_source(_video(tmp_path / "a.mp4", aspect))
    assert source.pixel_aspect == 1
    assert not warning_lines(source, RequestedOutputs())


@pytest.mark.parametrize("aspect", [Fraction(1, 2**31 - 1), Fraction(2**31 - 1)])
def test_a_ratio_that_no_file_can_hold(tmp_path, aspect):
    path = tmp_path / "out.mp4"
    height, width = SIZE
    with VideoSink(
        path, fps=Fraction(5), height=height, width=width, pixel_aspect=aspect
    ) as sink:
        sink.write(np.zeros((*SIZE, 3), np.uint8))
    source = open_source(path)
    assert (len(list(source)), source.pixel_aspect) == (1, 1)

from fractions import Fraction

import av
import numpy as np

from vis_jax.predict import sound
from vis_jax.predict.part import Part
from vis_jax.predict.sinks import VideoSink
from vis_jax.predict.sound import Sound, SoundCopy
from vis_jax.predict.sources import open_source

RATE = 16_000  # samples a second


def _video(path, codec="aac"):
    """Four seconds: 40 frames, and a tone that is heard in the third second alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        sound = container.add_stream(codec, rate=RATE, layout="mono")
        times = np.arange(4 * RATE) / RATE
        tone = np.sin(2 * np.pi * 500 * times) * ((times >= 2) & (times < 3)) / 2
        for _ in range(40):
            pixels = np.zeros((32, 48, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for begin in range(0, len(tone), 1024):
            samples = tone[None, begin : begin + 1024].astype(np.float32)
            heard = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
            heard.sample_rate, heard.pts = RATE, begin
            container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
    return path


def _heard(path):
    """The seconds in which something is heard, first and last, and the length."""
    loud, end = [], 0.0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray()
            end = frame.time + samples.shape[-1] / frame.sample_rate
            loud += [frame.time] * bool(abs(samples).max() > 0.1)
    return min(loud), max(loud), end


def _copy(source, path):
    size = dict(height=source.height, width=source.width)
    with VideoSink(path, fps=source.fps, sound=source.sound, **size) as video:
        for frame in source.read():
            video.write(frame.pixels, frame.seconds)


def test_sound_is_copied_and_stays_with_its_frames(tmp_path):
    path = _video(tmp_path / "in.mp4")
    for part, first, end in (
        (Part(), 2, 4),
        (Part(start=1.5, end=3.5), 0.5, 2),
        (Part(start=1.5, every=4), 0.5, 2.5),
    ):
        source = open_source(path, part=part)
        assert source.sound.codec == "aac" and source.sound.fits
        _copy(source, tmp_path / "out.mp4")
        begin, last, length = _heard(tmp_path / "out.mp4")
        np.testing.assert_allclose(begin, first, atol=0.13)
        np.testing.assert_allclose(last, first + 1, atol=0.2)
        np.testing.assert_allclose(length, end, atol=0.2)
        frames = len(list(open_source(tmp_path / "out.mp4")))
        assert frames == len(list(source))


def test_sound_that_cannot_be_read_on_ends_and_the_video_does_not(
    tmp_path, monkeypatch
):
    source = open_source(_video(tmp_path / "in.mp4"))
    demux = SoundCopy._copy_until

    def broken(copy, seconds):
        if seconds > 2.5 and copy._next is not None:  # it is taken away then
            raise av.InvalidDataError(1, "damaged")
        demux(copy, seconds)

    monkeypatch.setattr(SoundCopy, "_copy_until", broken)
    told = []
    monkeypatch.setattr(sound.logging, "warning", lambda *words: told.append(words))
    _copy(source, tmp_path / "out.mp4")
    monkeypatch.undo()
    ((_, path, seconds, _),) = told
    assert path == str(tmp_path / "in.mp4") and 2.5 < seconds < 2.7
    assert len(list(open_source(tmp_path / "out.mp4"))) == 40
    np.testing.assert_allclose(_heard(tmp_path / "out.mp4")[2], 2.5, atol=0.2)


def test_a_video_without_sound_has_none(tmp_path):
    with VideoSink(tmp_path / "v.mp4", fps=Fraction(5), height=32, width=48) as video:
        video.write(np.zeros((32, 48, 3), np.uint8))
    assert open_source(tmp_path / "v.mp4").sound is None


def test_what_mp4_cannot_hold_is_known_before():
    assert not Sound("a.mkv", "vorbis", 0.0).fits

"""Signals while a video is predicted."""

import json
import os
import signal
import threading
from contextlib import closing

import numpy as np
import pytest
from pycocotools import mask as rle

from vis_jax.evaluate.ahead import Ahead
from vis_jax.predict import live, writer
from vis_jax.predict.loop import Finder, predict
from vis_jax.predict.sources import from_arrays, open_source
from vis_jax.predict.writer import RequestedOutputs
from vis_jax.results.clock import NO_CLOCK
from vis_jax.results.frame import FrameResult, LiveTracks

SIZE = (40, 64)
TRACKS = LiveTracks(np.array([1], np.int32), np.array([[0.9]], np.float32))
MASK = rle.encode(np.asfortranarray(np.eye(*SIZE, dtype=np.uint8)))
BOTH = [signal.SIGINT, signal.SIGTERM]


def _stream(frames, *, clock=NO_CLOCK):
    """Reads in another thread, as systems do."""
    with closing(Ahead(iter(frames))) as ahead:
        t = 0
        while ahead.take() is not None:
            yield FrameResult(t, TRACKS, np.arange(1), [MASK])
            t += 1


def _predict(source, output, stream=_stream, **options):
    wanted = RequestedOutputs(formats=("json", "jsonl", "ids", "mp4"))
    more = {"wanted": wanted}
    return predict(source, output, Finder(stream, [(1, "cat")], 1), **(more | options))


def _told(number):
    os.kill(os.getpid(), number)


@pytest.fixture
def source():
    return from_arrays(np.zeros((9, *SIZE, 3), np.uint8), fps=10)


@pytest.fixture(autouse=True)
def handlers_are_given_back():
    before = [signal.getsignal(number) for number in BOTH]
    yield
    assert [signal.getsignal(number) for number in BOTH] == before


def _check_written(done, count, number):
    assert (done.num_frames, done.stopped) == (count, number)
    (entry,) = json.loads(done.outputs.results.read_text())
    assert len(entry["segmentations"]) == count
    assert len(done.outputs.tracks.read_text().splitlines()) == count
    assert len(list(done.outputs.ids.iterdir())) == count
    assert len(list(open_source(done.outputs.video))) == count
    (video,) = json.loads(done.outputs.info.read_text())["videos"]
    assert video["length"] == len(video["file_names"]) == count


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_in_the_model_ends_it_at_once(source, tmp_path, number):
    def stream(frames, *, clock=NO_CLOCK):
        for found in _stream(frames):
            if found.frame == 5:
                _told(number)
                raise AssertionError("an interpreter that went on would get here")
            yield found

    done = _predict(source, tmp_path / "out", stream)
    _check_written(done, 5, number)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_while_a_frame_is_written_waits_for_it(
    source, tmp_path, monkeypatch, number
):
    drawn, draw_frame = [], writer.draw_frame

    def draw(*words, **more):
        drawn.append(words)
        if len(drawn) == 4:
            _told(number)
        return draw_frame(*words, **more)

    monkeypatch.setattr(writer, "draw_frame", draw)
    _check_written(_predict(source, tmp_path / "out"), 4, number)


def test_a_signal_before_the_first_frame_writes_nothing(source, tmp_path):
    def stream(frames, *, clock=NO_CLOCK):
        _told(signal.SIGINT)
        yield from ()

    done = _predict(source, tmp_path / "out", stream)
    assert (done.outputs, done.num_frames, done.stopped) == (None, 0, signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_the_wait_for_a_frame_that_never_comes(tmp_path):
    reader, writing = os.pipe()
    os.write(writing, bytes(3 * 3 * SIZE[0] * SIZE[1]))
    source = live.from_pipe(reader, raw=SIZE)
    threads = set(threading.enumerate())

    def stream(frames, *, clock=NO_CLOCK):
        for found in _stream(frames):
            yield found
            if found.frame == 2:  # is written, as the next one is asked for
                threading.Timer(0.2, _told, [signal.SIGTERM]).start()

    _check_written(_predict(source, tmp_path / "out", stream), 3, signal.SIGTERM)
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()
    os.close(reader)
    os.close(writing)


def test_a_second_ctrl_c_ends_it_as_ever(source, tmp_path, monkeypatch):
    def draw(*words, **more):
        _told(signal.SIGINT)
        _told(signal.SIGINT)

    monkeypatch.setattr(writer, "draw_frame", draw)
    with pytest.raises(KeyboardInterrupt):
        _predict(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_threads_can_predict(source, tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(_predict(source, tmp_path / "out"))
    )
    thread.start()
    thread.join()
    _check_written(found[0], 9, None)

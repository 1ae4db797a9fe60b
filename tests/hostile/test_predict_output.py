"""Remains of a killed process, and impossible frame rates."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vis_jax.predict.loop import Finder, predict
from vis_jax.predict.sources import open_source
from vis_jax.predict.writer import RequestedOutputs
from vis_jax.results.clock import NO_CLOCK
from vis_jax.results.frame import FrameResult, LiveTracks

NO_TRACKS = LiveTracks(np.zeros(0, np.int32), np.zeros((0, 1), np.float32))
KILLED = """
import os, signal, sys
from pathlib import Path
from vis_jax.predict.staging import staging
with staging(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _nothing(frames, *, clock=NO_CLOCK):
    for t, _ in enumerate(frames):
        yield FrameResult(t, NO_TRACKS, np.zeros(0, int), [])


def _predict(source, output, **wanted):
    done = predict(
        source,
        output,
        Finder(_nothing, [(1, "cat")], top=1),
        wanted=RequestedOutputs(**wanted),
    )
    return done.outputs


@pytest.fixture
def source(tmp_path):
    (tmp_path / "frames").mkdir()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "frames" / "0.png")
    return open_source(tmp_path / "frames")


def _left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_what_a_killed_process_left_goes_at_the_next_start(source, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out")]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    (made,) = tmp_path.glob(".out.partial-*")
    assert (made / "output").is_dir()
    _predict(source, tmp_path / "out", formats=("json", "jsonl"))
    assert _left(tmp_path) == ["frames", "out"]


def test_what_may_be_in_use_stays(source, tmp_path):
    host = socket.gethostname()
    kept = [
        f".out.partial-{host}-{os.getpid()}-a1",  # runs
        f".out.partial-elsewhere{host}-999999999-a1",  # of another host
        f".out2.partial-{host}-999999999-a1",  # of another output
        ".out.partial-notes",
    ]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / f".out.partial-{host}-999999999-a1").mkdir()
    _predict(source, tmp_path / "out", formats=("json", "jsonl"))
    assert _left(tmp_path) == sorted([*kept, "frames", "out"])


@pytest.mark.parametrize(("rate", "drawn"), [("1/120", "1/100"), ("90000", "1000")])
def test_a_source_of_any_rate_gives_results(source, tmp_path, rate, drawn):
    source = dataclasses.replace(source, fps=Fraction(rate))
    written = _predict(source, tmp_path / "out")
    assert json.loads(written.results.read_text()) == []
    info = json.loads(written.info.read_text())
    assert info["videos"][0]["fps"] == float(Fraction(rate))
    with av.open(str(written.video)) as container:
        assert container.streams.video[0].average_rate == Fraction(drawn)
    assert _predict(
        source, tmp_path / "only", formats=("json", "jsonl")
    ).results.exists()
    with pytest.raises(ValueError, match=r"--fps: expected 0\.01 \.\. 1000 frames"):
        _predict(source, tmp_path / "wrong", fps=Fraction(rate))

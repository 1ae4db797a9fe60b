"""`predict` on one video: a pipe that a signal ends, and what it cannot use.

tests/test_end_to_end.py predicts with a model that was trained.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import call, error_of
from tests.saved_runs import write_run
from vis_jax.predict import live
from vis_jax.predict.sources import from_arrays, open_source

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "run"
    return write_run(folder, "ifr_shapes", {"model.mask_decoder.layers": 1})


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)],
)
def test_predict_on_a_pipe_until_a_signal_comes(workdir, tmp_path, number, name, code):
    """Clip by clip, from frames that stop coming while the pipe stays open."""
    output = tmp_path / "out"
    words = ["predict", "--workdir", workdir, "--source=-", "--raw=70x50", "--pngs"]
    words += ["--output", output, "--config.test.mode=clip", "--score_threshold=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vis_jax.main", *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    noise = np.random.default_rng(0).integers(0, 256, (11, 50, 70, 3), np.uint8)
    try:
        process.stdin.write(noise.tobytes())
        process.stdin.flush()
        pngs = f".{output.name}.partial-*/output/ids/*.png"
        until = time.monotonic() + 200
        while len(list(tmp_path.glob(pngs))) < 2:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == code
        errors = process.stderr.read().decode()
    finally:
        process.kill()
        process.communicate()
    (count,) = re.findall(rf"^{name}: the results of (\d+) frames are", errors, re.M)
    assert 2 <= int(count) <= 11
    assert len(list(open_source(output / "video.mp4"))) == int(count)
    lines = (output / "tracks.jsonl").read_text().splitlines()
    assert len(lines) == int(count)
    results = json.loads((output / "results.json").read_text())
    assert {len(entry["segmentations"]) for entry in results} <= {int(count)}
    (info,) = json.loads((output / "video.json").read_text())["videos"]
    assert info["length"] == int(count)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_live_source_goes_clip_by_clip_unless_the_mode_is_set(
    workdir, tmp_path, monkeypatch
):
    def pipe(*_, **__):
        return from_arrays(np.zeros((50, 70, 3), np.uint8) for _ in range(7))

    monkeypatch.setattr(live, "from_pipe", pipe)
    words = ("--workdir", workdir, "--source=-", "--output", tmp_path / "out")
    message = error_of("predict", *words, "--config.test.mode=video")
    assert message.endswith("set --config.test.mode=clip")
    assert not (tmp_path / "out").exists()
    outcome = call("predict", *words)
    assert outcome.code == 0, outcome
    assert "has no known end: goes clip by clip, 3 frames each" in outcome.err
    memory = r"^memory +about \d.* [kM]B for 3 frames at once"
    assert re.search(memory, outcome.out, re.M)
    lines = (tmp_path / "out/tracks.jsonl").read_text().splitlines()
    assert len(lines) == 7


def test_what_predict_cannot_use_is_named(workdir, tmp_path):
    output = tmp_path / "out"
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and nothing more")
    (tmp_path / "frames").mkdir()

    def error(folder, source):
        words = ("--workdir", folder, "--source", source, "--output", output)
        message = error_of("predict", *words)
        assert not output.exists()
        return message

    broken = tmp_path / "broken.mp4"
    assert error(workdir, broken).startswith(f"{broken}: not a readable video")
    assert "expected images" in error(workdir, tmp_path / "frames")
    assert "no such file or folder" in error(workdir, tmp_path / "none.mp4")
    assert f"got {tmp_path}: no such file" in error(tmp_path, broken)
    empty = shutil.copytree(workdir, tmp_path / "empty")
    shutil.rmtree(empty / "checkpoints")
    Image.new("RGB", (70, 50)).save(tmp_path / "frames" / "0.png")
    assert f"{empty}: no checkpoint" in error(empty, tmp_path / "frames")

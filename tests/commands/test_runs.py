"""Commands on several runs: settings that differ, and seeds."""

import json
import os
import re
import signal
import sys
import threading
import time

import pytest
from PIL import Image

from tests.command_line import call, error_of
from tests.recipes import recipe
from vis_jax.commands import runs_plot, sweep
from vis_jax.training.metrics_file import MetricsFile
from vis_jax.training.run_config import write_config

# Stands in for a training: writes the scores of its seed, or ends with a code.
TRAINING = """
import json, pathlib, signal, sys, time
place, code = pathlib.Path(sys.argv[1]), int(sys.argv[2])
if code == 143:
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    (place / "started").touch()
    time.sleep(60)
if code:
    sys.exit(code)
config = json.loads((place / "config.json").read_text())
for name, share in (("", 0.25), ("quick", 0.5)):
    folder = place / "evaluation" / name / f"step_{config['num_steps']}"
    folder.mkdir(parents=True)
    scores = {"AP": share + config["seed"] / 100, "HOTA": None, "tracks": 9}
    (folder / "scores.json").write_text(json.dumps(scores))
"""


@pytest.fixture
def trainings(monkeypatch):
    """Records trainings, and gives the next ones their exit codes."""
    trained, codes = [], []

    def command_of(place):
        trained.append(place.name)
        code = str(codes.pop(0) if codes else 0)
        return [sys.executable, "-S", "-c", TRAINING, str(place), code]

    monkeypatch.setattr(sweep, "command_of", command_of)
    return trained, codes


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import ifr_shapes\n\n\ndef get_config():\n"
        "    config = ifr_shapes.get_config('debug')\n"
        "    config.evals = dict(quick=dict(every=3))\n    return config\n"
    )
    return path


def test_a_sweep_goes_on_and_ends_with_mean_and_spread(tmp_path, config, trainings):
    trained, codes = trainings
    folder = tmp_path / "sweep"
    words = ("sweep", "--config", config, "--workdir", folder, "--config.seed=4")
    codes += [0, 2]
    with pytest.raises(SystemExit) as ended:
        call(*words)
    assert (ended.value.code, trained) == (2, ["seed_4", "seed_5"])
    assert not (folder / "sweep.json").exists()
    outcome = call("sweep", "--workdir", folder)
    assert outcome.code == 0, outcome
    assert trained[2:] == ["seed_5", "seed_6"]
    lines = outcome.out.splitlines()
    assert lines[0].endswith("seed_4, finished")
    heads = "in percent seed 4 seed 5 seed 6 mean std"
    assert lines[3].split() == heads.split()
    assert lines[4].split() == ["AP", "29.0", "30.0", "31.0", "30.0", "1.0"]
    assert lines[5].split() == ["quick/AP", "54.0", "55.0", "56.0", "55.0", "1.0"]
    assert len(lines) == 7
    row = json.loads((folder / "sweep.json").read_text())["metrics"]["AP"]
    assert row["values"] == pytest.approx([0.29, 0.3, 0.31])
    assert (row["mean"], row["std"]) == pytest.approx((0.3, 0.01))
    seeds = [json.loads((folder / n / "config.json").read_text()) for n in trained]
    assert [one["seed"] for one in seeds] == [4, 5, 5, 6]

    message = error_of(*words[:-1], "--config.seed=5")
    expected = "expected the settings of the sweep in this folder, got seed: 4 -> 5"
    assert message == f"{folder / 'config.json'}: {expected}"
    outcome = call("sweep", "--workdir", folder, "--seeds", 1)
    assert outcome.out.splitlines()[2].split() == ["AP", "29.0", "29.0", "-"]
    (folder / "checkpoints").mkdir()
    assert "expected a folder for a sweep" in error_of(*words)


def test_a_signal_reaches_the_training_and_the_sweep_ends_with_it(
    tmp_path, config, trainings
):
    _, codes = trainings
    codes.append(143)
    started = tmp_path / "sweep" / "seed_0" / "started"

    def stop():
        while not started.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(SystemExit) as ended:
        call("sweep", "--config", config, "--workdir", tmp_path / "sweep")
    assert ended.value.code == 143


def test_what_a_sweep_needs_is_named():
    message = error_of("sweep", "--config", "ifr_shapes:debug")
    assert message == "--workdir: expected a folder for the sweep, got none"
    words = ("sweep", "--config", "ifr_shapes:debug", "--workdir", "gs://bucket/x")
    assert "--workdir: expected a path on a disk" in error_of(*words)


def test_settings_that_differ_are_listed(tmp_path):
    for name, changes in {
        "a": {},
        "b": {"seed": 7, "optimizer.clip_norm": 0.5},
    }.items():
        write_config(recipe("ifr_shapes", "debug", changes), str(tmp_path / name))
    both = f"{tmp_path}/a,{tmp_path}/b"
    outcome = call("runs", "diff", "--workdirs", both)
    rows = [line.split() for line in outcome.out.splitlines()]
    assert rows == [
        ["setting", f"{tmp_path}/a", f"{tmp_path}/b"],
        ["seed", "0", "7"],
        ["optimizer.clip_norm", "0.1", "0.5"],
    ]
    outcome = call("runs", "diff", "--workdirs", both, "--section", "optimizer")
    assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == [
        "optimizer.clip_norm"
    ]
    words = both.split(",")
    outcome = call("runs", "diff", *words, "--section", "model")
    assert outcome.out == "all settings of model are equal\n"
    # A config.json of another version is compared as it is.
    path = tmp_path / "b" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extra": {"one": 1}}))
    outcome = call("runs", "diff", "--workdirs", both)
    assert outcome.out.splitlines()[-1].split() == ["extra.one", "not", "set", "1"]
    assert "expected two folders" in error_of("runs", "diff", "--workdirs", "a")
    assert "config.json: expected a JSON file" in error_of(
        "runs", "diff", "--workdirs", f"{tmp_path}/none,{tmp_path}/b"
    )


def write_metrics(folder, losses, scores):
    file = MetricsFile(str(folder))
    folder.mkdir(parents=True)
    for step, loss in enumerate(losses, 1):
        file.scalars(step, {"train/loss": loss, "train/fit": loss / 2})
        file.scalars(step, {"notes/lost": 0.0, "notes/left": step - 1.0})
    file.scalars(len(losses), {"eval/AP": scores, "eval/AR1": 0.5})


def test_curves_of_runs_and_sweeps(tmp_path):
    write_metrics(tmp_path / "sweep" / "seed_0", [3.0, float("nan"), 1.0], 0.25)
    write_metrics(tmp_path / "sweep" / "seed_1", [3.5, 2.5], 0.5)
    write_metrics(tmp_path / "<b>", [5.0], 0.75)
    words = ("runs", "plot", "--output", tmp_path / "out")
    both = ("--workdirs", f"{tmp_path}/sweep,{tmp_path}/<b>")
    outcome = call(*words, *both)
    assert outcome.code == 0, outcome
    assert outcome.out.splitlines() == [
        f"curves        {tmp_path / 'out' / name}" for name in runs_plot.FILES
    ]
    page = (tmp_path / "out" / "curves.html").read_text()
    assert "<b>" not in page
    for label in ("sweep/seed_0", "sweep/seed_1", "&lt;b&gt;"):
        assert f">{label}</text>" in page and f"<th>{label}</th>" in page
    titles = [name for name in re.findall(r">([\w/]+)</text>", page) if "/" in name]
    names = ["train/loss", "eval/AP", "train/fit", "notes/left"]  # no note without news
    assert [name for name in titles if not name.startswith("sweep")] == names
    row = "<td>train/loss</td><td>1 (step 3)</td><td>2.5 (step 2)</td><td>5 (step 1)"
    assert row in page
    assert "<td>eval/AR1</td><td>0.5 (step 3)</td>" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    with Image.open(tmp_path / "out" / "curves.png") as picture:
        assert picture.format == "PNG"

    outcome = call(*words, *both, "--metrics", "eval/AR*")
    assert outcome.code == 0
    page = (tmp_path / "out" / "curves.html").read_text()
    assert ">eval/AR1</text>" in page and ">train/loss</text>" not in page
    outcome = call(*words, "--workdirs", tmp_path / "sweep" / "seed_0")
    assert ">seed_0</text>" in (tmp_path / "out" / "curves.html").read_text()
    message = error_of(*words, *both, "--metrics", "eval/AX")
    assert message.startswith("--metrics: expected some of train/loss, train/fit, ")
    message = error_of(*words, "--workdirs", tmp_path / "none")
    assert message.endswith("none: expected metrics.jsonl of a run, got no such file")
    assert error_of(*words) == "--workdirs: expected folders of runs, got none"

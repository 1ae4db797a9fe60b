"""Weights & Biases and trackio, by stand-ins for their modules."""

import sys
import types

import numpy as np
import pytest

from tests.command_line import error_of
from tests.training.toy_system import toy_batches, toy_config, toy_system
from vis_jax.training.evaluations import Evaluation
from vis_jax.training.loop import train
from vis_jax.training.metrics_file import METRICS_FILE, read_metrics


@pytest.fixture
def service(monkeypatch):
    """Installs a module of this name; returns the calls it receives."""

    def install(name):
        calls = []
        module = types.ModuleType(name)
        for word in ("init", "log", "finish"):
            note = lambda *args, word=word, **kw: calls.append((word, args, kw))  # noqa: E731
            setattr(module, word, note)
        module.Image = lambda array: ("image", array.shape)
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return install


def run(workdir, names, num_steps):
    changes = {"train.loggers": names, "train.project": "mine", "train.image_every": 2}
    train(
        toy_config(num_steps=num_steps, **changes), toy_system(), toy_batches,
        str(workdir), evaluations=[Evaluation("", 0, lambda *unused: {"AP": 12.5})],
        draw=lambda *unused: {"clip": np.zeros((4, 6, 3), np.uint8)},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_has_the_numbers_and_pictures_of_a_run(service, tmp_path, name):
    calls, workdir = service(name), tmp_path / "shapes"
    run(workdir, [name], 3)
    key = (workdir / "run_id").read_text()
    kind, _, started = calls[0]
    named = {"name": "shapes", "id": key, "dir": str(workdir)}
    if name == "trackio":
        named = {"name": f"shapes-{key}"}
    assert (kind, started["config"]["num_steps"]) == ("init", 3)
    assert started | {"config": None} == {
        "project": "mine", "config": None, "resume": "allow", **named
    }  # fmt: skip
    logged = [(kw["step"], args[0]) for word, args, kw in calls if word == "log"]
    lines = read_metrics(workdir / METRICS_FILE)
    values = [one for one in logged if "clip" not in one[1]]
    assert values == [
        (one["step"], {k: v for k, v in one.items() if "/" in k}) for one in lines
    ]
    assert {key for _, line in values for key in line} >= {"train/loss", "eval/AP"}
    assert (2, {"clip": ("image", (4, 6, 3))}) in logged
    assert [word for word, *_ in calls].count("finish") == 1
    assert not (workdir / "tensorboard").exists()

    before = len(calls)
    run(workdir, [name], 5)  # goes on as the same run
    started = calls[before][2]
    assert {field: started[field] for field in named} == named


def test_a_service_that_is_not_installed_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = ("--config", "configs/ifr_shapes.py:debug", "--workdir", tmp_path / "run")
    message = error_of(*words, "--config.train.loggers=('tensorboard','wandb')")
    assert message.startswith(
        "train.loggers: 'wandb' needs the package wandb: pip install 'vis_jax[loggers]'"
    )
    assert not (tmp_path / "run").exists()
    message = error_of(*words, "--config.train.loggers=('wandb','tensorbord')")
    assert "train.loggers: expected ('tensorboard' or 'wandb' or 'trackio'" in message

"""Resources of a training, without training."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.schema import BATCH
from tests.command_line import call, error_of
from tests.recipes import recipe
from vis_jax.commands import dry_run_mesh
from vis_jax.commands.dry_run import _count
from vis_jax.settings import read_settings
from vis_jax.structures import LossAux, Window
from vis_jax.systems.system import System
from vis_jax.training import dry_run as training_dry_run
from vis_jax.training.dry_run import Estimate, batch_shapes, estimate
from vis_jax.training.run_config import LoopSettings
from vis_jax.training.simulate import lower_update

CONFIG = "configs/ifr_r50.py:debug"


def product_system():
    """One matrix [8, 4], multiplied with the first 8 pixels of a frame."""

    def init(rng, batch):
        return {
            "params": {"head": {"kernel": jnp.ones((8, 4))}},
            "constants": {"mean": jnp.zeros(3)},
        }

    def scores(variables, images):
        pixels = images[..., 0].reshape(-1)[:8].astype(jnp.float32)
        return pixels @ variables["params"]["head"]["kernel"]

    def loss(variables, batch, rng):
        found = jnp.exp(scores(variables, batch.images)).sum()
        return found, LossAux({"all": found}, {}, {})

    def step(variables, tracks, clip):
        return tracks, scores(variables, clip.images)

    return System(init, loss, lambda clip: (), step, Window(None, None))


def test_counts_by_hand():
    config = LoopSettings(num_steps=1)
    batch = batch_shapes(B=1, T=1, M=1, H=2, W=4)
    found = estimate(config, product_system(), batch, canvas=(2, 4))
    assert found.parameters == {"head": 32}
    assert found.constants == 3
    assert found.flops == 2 * 32 + 8  # the product, and pixels to floats
    memory = found.memory
    assert memory["parameters"] == 4 * (32 + 3)
    assert memory["gradients"] == 4 * 32
    # Two moments and the counts of the moments and of the schedule.
    assert memory["optimiser"] == 2 * 4 * 32 + 2 * 4
    # Uint8 pixels; frame, mask, present and instance; size; box; label and track.
    assert memory["batch"] == 2 * 4 * 3 + (1 + 8 + 1 + 1) + 8 + 16 + 4 + 4
    # The pixels as floats, and the exponentials.
    assert memory["kept for the backward pass"] == 4 * (8 + 4)


def test_microbatches_and_averages_count():
    settings = {"num_steps": 1, "train": {"accumulate": 4, "ema": 0.9}}
    config = read_settings(LoopSettings, settings)
    batch = batch_shapes(B=4, T=1, M=1, H=2, W=4)
    memory = estimate(config, product_system(), batch, canvas=(2, 4)).memory
    assert memory["average"] == 4 * 32
    assert memory["kept for the backward pass"] == 4 * (8 + 4)  # as of one clip


def test_a_count_is_exact_and_short():
    assert _count(7_370_031) == "7,370,031 (7.37 M)"
    assert _count(35, width=6) == "    35 (35)"


def test_batch_shapes_follow_the_contract():
    batch = batch_shapes(B=2, T=3, M=4, H=5, W=6)._asdict()
    assert batch.pop("features") is None  # only of a frozen encoder
    assert list(batch) == list(BATCH)
    assert batch["masks"].shape == (2, 4, 3, 5, 6)
    assert batch["boxes"].shape == (2, 4, 3, 4)
    assert batch["sizes"].dtype == np.int32


def test_prints_what_a_config_would_take():
    outcome = call("train", f"--config={CONFIG}", "--dry_run")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    pattern = r"parameters    ([\d,]+) \(.*\); not trained: [\d,]+ \(.*\)"
    found = re.fullmatch(pattern, lines[0])
    assert found, lines[0]
    parts = [re.fullmatch(r" {14} *([\d,]+) \(.*\)  (\w+)", x) for x in lines[1:4]]
    numbers = {one[2]: int(one[1].replace(",", "")) for one in parts}
    assert set(numbers) == {"backbone", "decoder", "pixel_decoder"}
    assert sum(numbers.values()) == int(found[1].replace(",", ""))
    assert re.match(r"FLOPs         .* M for a frame on 64 x 128", lines[4])
    assert f"MB for 2 clips on each of {jax.device_count()} devices" in outcome.out
    steps = (
        "steps         4 of 2 clips, 8 in all; 4.0 epochs of 2 videos, a clip of each"
    )
    assert steps in lines
    assert "batch         masks           bool     [2, 4, 2, 64, 96]" in lines


def test_without_data_the_epochs_are_unknown_and_the_classes_must_be_given(
    tmp_path, monkeypatch
):
    found = Estimate({"head": 35}, constants=0, flops=None, memory={"batch": 1})
    monkeypatch.setattr(training_dry_run, "estimate", lambda *_, **sizes: found)
    data = (f"--config.data.root={tmp_path / 'absent'}", "--config.data.name=folder")
    words = (f"--config={CONFIG}", "--dry_run", *data)
    error = error_of(*words, "--config.model.num_classes=0")
    assert "model.num_classes: expected at least 1" in error
    outcome = call(*words)
    assert f"epochs unknown: no folder {tmp_path / 'absent'}" in outcome.out
    assert "FLOPs         unknown for a frame" in outcome.out


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("data.frames=0", "data.frames: expected int, at least 1, got 0"),
        ("optimizer.schedule=flat", "optimizer.schedule: expected 'step' or 'cosine'"),
    ],
)
def test_wrong_settings_are_found_without_a_training(field, expected):
    words = (f"--config={CONFIG}", "--dry_run", f"--config.{field}")
    assert expected in error_of(*words)


MESH = ("--dry_run", "--mesh=data=2,fsdp=2", "--config.data.batch_size=4")


def test_an_update_on_simulated_devices_is_lowered():
    words = ("--config=configs/yolact_shapes.py:debug", *MESH, "--compile_seconds=0")
    outcome = call("train", *words, "--config.mesh.least=1")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == (
        "mesh          data=2, fsdp=2: 4 simulated devices, clips on each: 1"
    )
    assert lines[1] == "compiled      no: --compile_seconds is 0"
    assert re.fullmatch(r"parameters +\d+ kB on each device", lines[2])
    kept = r"activations +[\d.]+ [kM]B, an estimate: all that autodiff stores, .*"
    assert re.fullmatch(kept, lines[5]), lines[5]
    assert "sent          unknown: that needs the compiled program" in lines
    chips = [line.split() for line in lines[-5:]]
    assert [row[0] for row in chips] == ["H100", "H200", "v5e", "v5p", "v6e"]
    assert {row[1] for row in chips} == {"yes"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data=8,fsdp=0", "--mesh: expected data=N,fsdp=N, got 'data=8,fsdp=0'"),
        ("fsdp=8", "--mesh: expected data=N,fsdp=N, got 'fsdp=8'"),
        ("data=2,data=4", "--mesh: expected data=N,fsdp=N, got 'data=2,data=4'"),
        ("data=8,model=2", "--mesh: expected data=N,fsdp=N"),
        ("data=3", "data.batch_size: expected a multiple of 3, .* got 2; set --conf"),
    ],
)
def test_a_mesh_that_cannot_be_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        dry_run_mesh.read_mesh(recipe("ifr_shapes"), text)
    words = ("--config=configs/ifr_shapes.py:debug", "--mesh=data=2")
    assert "--mesh: expected --dry_run beside it" in error_of("train", *words)
    words = ("--config=configs/ifr_shapes.py:debug", "--compile_seconds=0")
    alone = "--compile_seconds: expected --mesh beside it, got 0 alone"
    assert alone in error_of("train", *words)
    assert alone in error_of("train", *words, "--dry_run")


@pytest.mark.parametrize(("count", "fits"), [(0.5, "yes"), (2, "no")])
def test_a_program_that_is_not_compiled_fits_by_the_estimate(count, fits, capsys):
    chips = {"v5e": [1.0, 1.0, 0.0]}
    lowered = {"stored": {"batch": 1e9}, "working": count * 10e9, "chips": chips}
    dry_run_mesh._print_chips(dry_run_mesh.Report(lowered, None, "why"), share=1)
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["v5e", fits]


def test_the_estimate_without_compiling_by_hand():
    """A clip of the product system, whose state is on one device."""
    batch = batch_shapes(B=1, T=1, M=1, H=2, W=4)
    found = lower_update(LoopSettings(num_steps=1), product_system(), batch)
    assert found.working == 4 * (8 + 4) + 4 * 32  # residuals and gradients


LOWERED = {"stored": {"parameters": 4000}, "working": 9, "flops": 1e12, "chips": {}}
COMPILED = {"arguments": 5, "working": 6, "sent": {}, "chips": {}}


@pytest.mark.parametrize(
    ("script", "seconds", "reason"),
    [
        ("os.kill(os.getpid(), 9)", 60, "code -9, -9 where memory runs out"),
        ("time.sleep(60)", 2, "it takes more than --compile_seconds=2"),
        ("", 0, "--compile_seconds is 0"),
        (f"print({json.dumps(COMPILED)!r})", 60, ""),
    ],
)
def test_a_program_that_is_not_compiled_says_why(script, seconds, reason, monkeypatch):
    begin = f"import os, time; print({json.dumps(LOWERED)!r}, flush=True); {script}"
    monkeypatch.setattr(dry_run_mesh, "CHILD", ("-c", begin))
    run = dry_run_mesh.read_mesh(recipe("ifr_shapes"), "data=2")
    found = dry_run_mesh.simulate(run, seconds=seconds)
    assert found.lowered == LOWERED
    assert found.compiled == (None if reason else COMPILED)
    assert found.reason.startswith(reason) and bool(reason) == bool(found.reason)


def test_an_error_of_the_settings_is_that_of_the_user(monkeypatch):
    run = dry_run_mesh.read_mesh(recipe("ifr_shapes"), "data=2")
    text = json.dumps({"error": "mesh.rules: wrong"})
    monkeypatch.setattr(dry_run_mesh, "CHILD", ("-c", f"print({text!r})"))
    with pytest.raises(ValueError, match=r"^mesh.rules: wrong$"):
        dry_run_mesh.simulate(run, seconds=60)
    monkeypatch.setattr(dry_run_mesh, "CHILD", ("-c", "raise SystemExit('gone')"))
    with pytest.raises(ValueError, match="--mesh: cannot lower the update: gone"):
        dry_run_mesh.simulate(run, seconds=60)

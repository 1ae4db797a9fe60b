"""What a training would take, without one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.schema import BATCH
from tests.command_line import call, error_of
from vis_jax.commands.dry_run import _count
from vis_jax.structures import LossAux, Window
from vis_jax.systems.system import System
from vis_jax.training.dry_run import batch_shapes, estimate
from vis_jax.training.run_config import RunSettings

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
    config = RunSettings(num_steps=1)
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


def test_a_count_is_exact_and_short():
    assert _count(7_370_031) == "7,370,031 (7.37 M)"
    assert _count(35, width=6) == "    35 (35)"


def test_batch_shapes_follow_the_contract():
    batch = batch_shapes(B=2, T=3, M=4, H=5, W=6)._asdict()
    assert list(batch) == list(BATCH)
    assert batch["masks"].shape == (2, 4, 3, 5, 6)
    assert batch["boxes"].shape == (2, 4, 3, 4)
    assert batch["sizes"].dtype == np.int32


@pytest.mark.slow
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


@pytest.mark.slow
def test_without_data_the_epochs_are_unknown_and_the_classes_must_be_given(tmp_path):
    data = (f"--config.data.root={tmp_path / 'absent'}", "--config.data.name=folder")
    words = (f"--config={CONFIG}", "--dry_run", *data)
    error = error_of(*words, "--config.model.num_classes=0")
    assert "model.num_classes: expected at least 1" in error
    outcome = call(*words)
    assert f"epochs unknown: no folder {tmp_path / 'absent'}" in outcome.out


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

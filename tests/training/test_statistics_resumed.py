"""Runs of systems with batch norm, stopped and started again."""

import functools
import signal

import jax
import numpy as np
import pytest

from data_pipeline.datasets.by_name import make_dataset
from data_pipeline.numpy_pipeline import train_batches
from tests.recipes import ONE_STAGE, recipe
from tests.training.toy_run import Recorder
from vis_jax.params import flatten
from vis_jax.systems import SYSTEMS
from vis_jax.training import initial
from vis_jax.training.loop import train

NORM = {"model.backbone.norm": "batch", "num_steps": 3, "train.checkpoint_every": 3}
# Everything is a detection, so that there is something to link, by a small graph.
FREE = {
    "test.score": 0.0,
    "loss.start_threshold": 0.02,
    "model.graph.blocks": 1,
    "model.graph.residuals": False,
    "model.masks.reweight": False,
}


@pytest.fixture
def traced_once(monkeypatch):
    """All runs of a test have the functions of the first; tracing is most of the work.

    They depend only on the config, the system and the shapes of a batch.
    """
    plans = []

    def plan(*inputs):
        plans.append(plans[0] if plans else make_plan(*inputs))
        return plans[-1]

    make_plan = initial.make_plan
    monkeypatch.setattr(initial, "make_plan", plan)
    return plans


@pytest.mark.parametrize(
    ("name", "changes", "moves"),
    [
        ("yolact_shapes", {}, True),
        ("rgnn_vis_shapes", FREE, False),
        ("mask_prop_shapes", ONE_STAGE, True),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(
    name, changes, moves, tmp_path, traced_once
):
    """Also of the statistics; those of a detector that is not trained never move."""
    run = recipe(name, "debug", {**NORM, **changes})
    system, dataset = SYSTEMS[run.system].build(run), make_dataset(run.data)

    def batches(start, stop_at=None):
        drawn = train_batches(dataset, run.data, seed=run.seed, start_step=start)
        for number, batch in enumerate(drawn, start):
            if number == stop_at:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    def trained(workdir, batches):
        recorder = Recorder()
        state = train(run, system, batches, str(tmp_path / workdir), writer=recorder)
        return jax.device_get((state.variables, state.opt_state)), recorder.losses

    whole, losses = trained("whole", batches)
    with pytest.raises(SystemExit):
        trained("broken", functools.partial(batches, stop_at=1))
    again, resumed = trained("broken", batches)
    assert 1 not in resumed and set(resumed) < set(losses)
    assert resumed.items() <= losses.items()
    assert len(traced_once) == 3
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    stats = flatten(whole[0]["batch_stats"])
    assert stats
    for path, value in stats.items():
        still = np.all(value == (0.0 if path.endswith("mean") else 1.0))
        assert still != moves, path

"""Videos shorter than a clip: nothing of a padded frame enters a loss."""

import jax
import numpy as np
import pytest

from tests.evaluate.drawn import drawn_variables
from tests.recipes import recipe
from tests.systems.contract import first_batch, with_junk
from vis_jax.systems import SYSTEMS


@pytest.mark.parametrize(
    "name", ["ifr_shapes", "mask_track_rcnn_shapes", "osmn_shapes", "condinst_shapes"]
)
def test_a_loss_is_blind_to_frames_behind_the_end_of_a_video(name):
    changes = {
        "data.sampling": {"kind": "run"},
        "data.frames": 4,
        "data.shapes.length": (2, 3),
        "data.shapes.num_videos": 4,
        "data.batch_size": 4,
    }
    run = recipe(name, "debug", changes)
    batch = first_batch(run)
    assert set(batch.frame_valid.sum(axis=1)) == {2, 3}
    system = SYSTEMS[run.system].build(run)
    variables = drawn_variables(system, run, 0)
    loss, key = jax.jit(system.loss), jax.random.key(1)
    value, aux = jax.device_get(loss(variables, batch, key))
    assert np.isfinite(value) and value > 0
    junk, other = jax.device_get(loss(variables, with_junk(batch), key))
    np.testing.assert_array_equal(value, junk)
    jax.tree.map(np.testing.assert_array_equal, aux, other)

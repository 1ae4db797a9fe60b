"""The trackers with the network itself: traced, for shapes and dtypes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.systems.osmn.coloured import GREEN, HEIGHT, RED, clip_of, detections_of
from vis_jax.backbones.normalize import normalize
from vis_jax.structures import Clip
from vis_jax.systems.osmn import mask_tracker as osmn_masks
from vis_jax.systems.osmn import tracker as osmn
from vis_jax.systems.osmn.network import OSMN
from vis_jax.systems.osmn.one_shot import OneShotNetwork

GUIDE = 32
MODEL = OSMN(
    widths=(3, 3, 4, 4, 4),
    depths=(1, 1, 2, 1, 1),
    hidden=5,
    side_width=2,
    dtype=jnp.bfloat16,
)
SETTINGS = osmn.Settings(chunk=2)


def _network(model):
    def apply(variables, *args, method):
        own = {name: tree["osmn"] for name, tree in variables.items()}
        return model.apply(own, *args, method=method)

    return OneShotNetwork(
        prepare=functools.partial(normalize, style=model.style),
        modulate=functools.partial(apply, method="modulate"),
        features=functools.partial(apply, method="features"),
        segment=functools.partial(apply, method="segment"),
        guide_side=GUIDE,
        channels=sum(model.channels),
    )


def _shapes():
    init = functools.partial(MODEL.init, train=False, train_norm=False)
    shapes = jax.eval_shape(
        init,
        jax.random.key(0),
        jnp.zeros((1, GUIDE, GUIDE, 3)),
        jnp.zeros((1, 32, 32, 3)),
        jnp.zeros((1, 32, 32)),
        valid=jnp.ones((1,), bool),
    )
    return {name: {"osmn": tree} for name, tree in shapes.items()}


def _padded(clip: Clip) -> Clip:
    """Pads the clip to multiples of 16 pixels."""
    rows = -HEIGHT % 16
    images = np.pad(clip.images, ((0, 0), (0, rows), (0, 0), (0, 0)))
    return clip._replace(images=images)


def _trackers(network):
    return {
        "osmn": osmn.build(SETTINGS, 3, network),
        "osmn_masks": osmn_masks.build(osmn_masks.Settings(chunk=2), 3, network),
    }


@pytest.mark.parametrize(
    ("name", "masks"), [("osmn", (2, 6, 6)), ("osmn_masks", (3, 8, 16))]
)
def test_states_keep_their_shapes_and_nothing_is_promoted(name, masks):
    frames = [[(10, 1, RED), (40, 14, GREEN)]] * 2
    clip, found = _padded(clip_of(frames)), detections_of(frames, 2)
    tracker = _trackers(_network(MODEL))[name]
    start = tracker.start(clip, found)
    state, tracked = jax.eval_shape(tracker.track, _shapes(), start, clip, found)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), start
    )
    assert (tracked.shown is not None) == tracker.draws == (name == "osmn_masks")
    assert (tracked.shown or found).mask_logits.shape == (2, *masks)
    assert tracked.track_ids.shape == (2, masks[0])

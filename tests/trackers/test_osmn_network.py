"""The trackers with the network itself, put together as a system does it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.trackers.coloured import GREEN, HEIGHT, RED, WIDTH, clip_of, detections_of
from vis_jax.association.modulation import OSMN
from vis_jax.backbones.normalize import normalize
from vis_jax.ops.guides import View, pad_box, visual_guide
from vis_jax.structures import Clip
from vis_jax.trackers import osmn, osmn_masks
from vis_jax.trackers.one_shot import Network

GUIDE = 32
MODEL = OSMN(widths=(3, 3, 4, 4, 4), depths=(1, 1, 1, 1, 1), hidden=5, side_width=2)
SETTINGS = osmn.Settings(
    detection=1.0,
    iou=2.0,
    category=10.0,
    min_iou=0.3,
    filter_first=False,
    losers="dropped",
    refresh_labels=False,
    overlap="box",
    guide="first",
    chunk=2,
)


def _network(model):
    def apply(variables, *args, method):
        own = {name: tree["osmn"] for name, tree in variables.items()}
        return model.apply(own, *args, method=method)

    return Network(
        prepare=functools.partial(normalize, style=model.style),
        modulate=functools.partial(apply, method="modulate"),
        features=functools.partial(apply, method="features"),
        segment=functools.partial(apply, method="segment"),
        guide_side=GUIDE,
        channels=sum(model.channels),
    )


def _variables():
    init = functools.partial(MODEL.init, train=False, train_norm=False)
    shapes = jax.eval_shape(
        init,
        jax.random.key(0),
        jnp.zeros((1, GUIDE, GUIDE, 3)),
        jnp.zeros((1, 32, 32, 3)),
        jnp.zeros((1, 32, 32)),
        valid=jnp.ones((1,), bool),
    )
    rng = np.random.default_rng(0)

    def draw(x):
        return jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    values = {
        "params": jax.tree.map(draw, shapes["params"]),
        "batch_stats": jax.tree.map(
            lambda x: jnp.abs(draw(x)) + 0.1, shapes["batch_stats"]
        ),
    }
    return {name: {"osmn": tree} for name, tree in values.items()}


def _padded(clip: Clip) -> Clip:
    """On a canvas of multiples of 16 pixels."""
    rows = -HEIGHT % 16
    images = np.pad(clip.images, ((0, 0), (0, rows), (0, 0), (0, 0)))
    return clip._replace(images=images)


def test_the_network_segments_what_detections_have_shown_it():
    frames = [[(10, 1, RED), (40, 14, GREEN)]] * 2
    clip, found = _padded(clip_of(frames)), detections_of(frames, 2)
    variables, network = _variables(), _network(MODEL)
    tracker = osmn_masks.build(osmn_masks.Settings(0.3, 4, 2), 3, network)
    state, tracked = jax.jit(tracker.track)(
        variables, tracker.start(clip, found), clip, found
    )
    assert tracked.shown.mask_logits.shape == (2, 3, 8, WIDTH // 4)
    np.testing.assert_array_equal(tracked.track_ids[0], [1, 2, 0])

    def look(images, size, box):
        image = network.prepare(images, size)[0]
        mask = jnp.zeros(image.shape[:2], bool).at[1:7, 10:16].set(True)
        view = View(pad_box(box, 0.03), jnp.zeros(()), jnp.zeros((), bool))
        guide = visual_guide(image, mask, view, side=GUIDE)
        return network.modulate(variables, guide[None])[0]

    gamma = jax.jit(look)(clip.images[:1], clip.size, found.boxes[0, 0])
    np.testing.assert_allclose(state.memory.gamma[0], gamma, rtol=1e-4)
    assert not np.allclose(state.memory.gamma[1], gamma, rtol=1e-3)


def test_association_keeps_computation_within_the_shapes_given():
    frames = [[(10, 1, RED), (40, 14, GREEN)]] * 2
    clip, found = _padded(clip_of(frames)), detections_of(frames, 2)
    tracker = osmn.build(SETTINGS, 3, _network(MODEL.clone(dtype=jnp.bfloat16)))
    start = tracker.start(clip, found)
    state, tracked = jax.eval_shape(tracker.track, _variables(), start, clip, found)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), start
    )
    assert tracked.track_ids.shape == (2, 2)

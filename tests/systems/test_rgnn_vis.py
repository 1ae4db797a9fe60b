import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recipes import recipe
from tests.systems.contract import first_batch
from vis_jax.params import flatten
from vis_jax.structures import Clip
from vis_jax.systems import SYSTEMS
from vis_jax.systems.rgnn_vis import build

# Every row of table 3 that changes the network, and what the released code has.
SWITCHES = {
    "pairs": {"model.graph.decide": "pairs"},
    "heuristic": {"model.graph.decide": "heuristic", "model.graph.recurrence": "none"},
    "sums": {"model.graph.gated": False},
    "one_block": {"model.graph.blocks": 1},
    "three_blocks": {"model.graph.blocks": 3},
    "no_residuals": {"model.graph.residuals": False},
    "two_layers": {"model.graph.residual_layers": 2},
    "no_recurrence": {"model.graph.recurrence": "none"},
    "simple": {"model.graph.recurrence": "simple"},
    "feedback": {"model.graph.feedback": True},
    "no_looks": {"model.graph.looks": "none"},
    "looks_of_nodes": {"model.graph.looks": "vertex"},
    "constant_variance": {"model.graph.looks": "constant_variance"},
    "lstm_looks": {"model.graph.looks": "lstm"},
    "paper_variance": {"model.graph.variance": "paper"},
    "conjugate_variance": {"model.graph.variance": "normal_inverse_chi2"},
    "from_zero": {"model.graph.looks_from_zero": True},
    "fixed_variance": {"model.graph.fixed_variance": True},
    # Of tracks that were out of sight.
    "last_boxes": {"model.graph.keep_boxes": False, "test.match": 0.9},
    "norm": {"model.graph.layer_norm": True},
    "positions": {"model.appearance.positions": True},
    "plain_background": {"model.appearance.describe_background": False},
    "masks_of_detections": {"model.masks.reweight": False},
    "background": {"model.masks.background": 10.0},
}


def _config(changes=None):
    # Everything is a detection and every detection a track, so that all is in use.
    free = {"test.score": 0.0, "test.match": 0.02, "test.start": 0.02}
    free |= {"data.frames": 3}
    return recipe("rgnn_vis_shapes", "debug", {**free, **(changes or {})})


@functools.cache
def _drawn():
    """System, variables and a clip."""
    config = _config()
    system, batch = build(config), first_batch(config)
    variables = jax.device_get(jax.jit(system.init)(jax.random.key(0), batch))
    clip = Clip(batch.images[1], batch.frame_valid[1], batch.sizes[1])
    return system, variables, batch, clip


@pytest.mark.slow
def test_frame_by_frame_equals_the_whole_clip():
    system, variables, _, clip = _drawn()
    step = jax.jit(system.step)
    _, whole = step(variables, system.start(clip), clip)
    state = system.start(clip)
    for t in range(len(clip.images)):
        one = Clip(clip.images[t : t + 1], clip.frame_valid[t : t + 1], clip.size)
        state, found = step(variables, state, one)
        np.testing.assert_array_equal(found.slots[0], whole.slots[t])
        np.testing.assert_allclose(
            found.mask_logits[0], whole.mask_logits[t], atol=1e-3
        )
    np.testing.assert_allclose(found.class_probs, whole.class_probs, atol=1e-5)
    assert np.any(np.asarray(found.slots) >= 0)


@pytest.mark.slow
def test_padded_frames_change_nothing():
    system, variables, _, clip = _drawn()
    step = jax.jit(system.step)
    state, found = step(variables, system.start(clip), clip)
    longer = Clip(
        np.concatenate([clip.images, 255 - clip.images[:1]]),
        np.append(clip.frame_valid, False),
        clip.size,
    )
    padded_state, padded = step(variables, system.start(longer), longer)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-5), padded_state, state
    )
    np.testing.assert_array_equal(padded.slots[-1], -1)
    np.testing.assert_array_equal(padded.slots[:-1], found.slots)


@pytest.mark.slow
def test_the_detector_is_frozen_and_the_association_learns():
    system, variables, batch, _ = _drawn()

    def loss(params, batch):
        return system.loss({**variables, "params": params}, batch, jax.random.key(1))

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, aux), gradient = both(variables["params"], batch)
    assert np.isfinite(value)
    np.testing.assert_allclose(value, sum(aux.terms.values()), rtol=1e-5)
    for path, leaf in flatten(jax.device_get(gradient)).items():
        assert np.isfinite(leaf).all(), path
        if path.startswith(("backbone", "detector")):
            assert not leaf.any(), path
    learned = ("appearance/projections_res4", "graph/say/match", "graph/say/start")
    learned += ("graph/recurrence/gates", "graph/classify")
    for path in learned:
        part = functools.reduce(lambda tree, key: tree[key], path.split("/"), gradient)
        assert np.any(part["kernel"] != 0), path


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_changes_what_is_said(name):
    _, variables, batch, clip = _drawn()
    system = build(_config(SWITCHES[name]))
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
    known, drawn = flatten(variables), np.random.default_rng(0)
    changed = jax.tree_util.tree_map_with_path(
        lambda path, x: _same_or_drawn(known, path, x, drawn), dict(shapes)
    )
    found = jax.jit(system.step)(changed, system.start(clip), clip)
    before = _step_of_defaults(SWITCHES[name].get("test.match", 0.02))
    same = jax.tree.structure(found) == jax.tree.structure(before) and all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(before), strict=True)
    )
    assert not same
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


@functools.cache
def _step_of_defaults(match):
    _, variables, _, clip = _drawn()
    system = build(_config({"test.match": match}))
    return jax.device_get(jax.jit(system.step)(variables, system.start(clip), clip))


def _same_or_drawn(known, path, shape, drawn):
    name = "/".join(key.key for key in path)
    if name in known and known[name].shape == shape.shape:
        return known[name]
    return drawn.normal(0, 0.1, shape.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("arg", "association"),
    [
        (None, 1_587_969),
        ("preset=paper", 1_587_969),
        ("preset=released", 1_708_415),
        ("dataset=ovis,plus", 1_582_834),
    ],
)
@pytest.mark.slow
def test_parameters_of_the_published_association(arg, association):
    config = recipe("rgnn_vis_r50", arg)
    method = SYSTEMS["rgnn_vis"]
    init = method.build(method.settings(model=config.model)).init
    small = first_batch(_config())
    shapes = flatten(dict(jax.eval_shape(init, jax.random.key(0), small)))
    sizes = {"detector": 0, "backbone": 0, "association": 0}
    for path, leaf in shapes.items():
        collection, part, *_ = path.split("/")
        if collection != "batch_stats":
            part = part if part in sizes else "association"
            sizes[part] += int(np.prod(leaf.shape))
    assert sizes["association"] == association
    assert sizes["backbone"] == 23_508_032
    if config.model.num_classes == 40:
        assert sizes["detector"] == 7_370_031


def test_the_state_has_one_size():
    system, variables, _, clip = _drawn()
    state = jax.eval_shape(system.start, clip)
    after, _ = jax.eval_shape(system.step, variables, state, clip)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)

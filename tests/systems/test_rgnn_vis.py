import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recipes import recipe
from tests.systems.contract import (
    Checked,
    check_frame_by_frame,
    check_learns,
    check_system,
    first_batch,
)
from vis_jax.detectors.yolact import YolactRule
from vis_jax.params import flatten
from vis_jax.systems import SYSTEMS, rgnn_loss
from vis_jax.systems.rgnn_model import build_model
from vis_jax.systems.rgnn_vis import build

# Every row of table 3 that changes the network, and what the released code has. What
# each of them does, tests/association shows.
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
    "last_boxes": {"model.graph.keep_boxes": False},
    "norm": {"model.graph.layer_norm": True},
    "positions": {"model.appearance.positions": True},
    "plain_background": {"model.appearance.describe_background": False},
    "masks_of_detections": {"model.masks.reweight": False},
    "background": {"model.masks.background": 10.0},
}


RULE = YolactRule(0.0, 0.7, 200, 4, True)


def _config(changes=None):
    # Everything is a detection and every detection a track, so that all is in use.
    free = {"test.score": 0.0, "test.match": 0.02, "test.start": 0.02}
    free |= {"data.frames": 3}
    return recipe("rgnn_vis_shapes", "debug", {**free, **(changes or {})})


@functools.cache
def _checked() -> Checked:
    """The detector is frozen: no parameter of it has a gradient, all others do."""
    config = _config()
    shapes = jax.eval_shape(build(config).init, jax.random.key(0), first_batch(config))
    paths = flatten(dict(shapes)["params"])
    frozen = {path for path in paths if path.startswith(("backbone/", "detector/"))}
    assert 0 < len(frozen) < len(paths)
    return check_system(build, config, no_gradient=frozen, seed=1)


def test_keeps_the_contract_of_systems():
    found = _checked().predictions
    assert found.mask_logits.shape[1:] == (6, 16, 24)
    assert (found.slots >= 0).any()


def test_frame_by_frame_equals_the_whole_video():
    check_frame_by_frame(_checked())


def test_updates_bring_the_loss_down():
    check_learns(_checked(), updates=10, rate=0.3, mean_of=3)


@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_reaches_the_network(name):
    def parts(changes):
        model = build_model(_config(changes).model, RULE, jnp.dtype("float32"))
        own = (model.graph, model.appearance, model.masks)
        return *own, model.background, model.positions

    assert parts({}) == parts({})
    assert parts(SWITCHES[name]) != parts({})


@pytest.mark.parametrize(  # those that are not of the graph alone
    "name", ["heuristic", "positions", "masks_of_detections", "background"]
)
def test_a_switch_changes_what_is_said(name):
    checked = _checked()
    variables, batch, clip = checked.variables, checked.batch, checked.clip
    system = build(_config(SWITCHES[name]))
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
    known, drawn = flatten(variables), np.random.default_rng(0)
    changed = jax.tree_util.tree_map_with_path(
        lambda path, x: _same_or_drawn(known, path, x, drawn), dict(shapes)
    )
    found = jax.jit(system.step)(changed, system.start(clip), clip)
    before = _step_of_defaults()
    same = jax.tree.structure(found) == jax.tree.structure(before) and all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(before), strict=True)
    )
    assert not same
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


@functools.cache
def _step_of_defaults():
    checked = _checked()
    step, state = checked.system.step, checked.system.start(checked.clip)
    return jax.device_get(jax.jit(step)(checked.variables, state, checked.clip))


def _same_or_drawn(known, path, shape, drawn):
    name = "/".join(key.key for key in path)
    if name in known and known[name].shape == shape.shape:
        return known[name]
    return drawn.normal(0, 0.1, shape.shape).astype(np.float32)


# Functions of the loss and the setting that each has to be given.
LOSS_SWITCHES = {
    "known_objects": ("late", "late_classes"),
    "class_targets": ("duplicates", "duplicates"),
    "scored_tracks": ("birth_frame", "birth_frame"),
    "frame_weights": ("normalised", "normalised"),
    "object_slots": ("whole_clip", "whole_clip"),
}


@pytest.mark.parametrize("preset", ["chosen", "released"])
def test_the_switches_of_the_loss_arrive(preset, monkeypatch):
    config = recipe("rgnn_vis_shapes", f"preset={preset},debug")
    system, batch, given = build(config), first_batch(config), {}
    for name, (argument, field) in LOSS_SWITCHES.items():
        whole = getattr(rgnn_loss, name)

        def watched(*args, whole=whole, argument=argument, field=field, **switches):
            given[field] = switches[argument]
            return whole(*args, **switches)

        monkeypatch.setattr(rgnn_loss, name, watched)
    key = jax.random.key(0)
    variables = dict(jax.eval_shape(system.init, key, batch))
    jax.eval_shape(system.loss, variables, batch, key)
    assert given == {field: getattr(config.loss, field) for field in given}
    assert len(given) == len(LOSS_SWITCHES)
    released = {field: field in ("duplicates", "whole_clip") for field in given}
    chosen = {field: not value for field, value in released.items()}
    assert given == {"released": released, "chosen": chosen}[preset]


@pytest.mark.parametrize(
    ("arg", "association"),
    [
        (None, 1_587_969),
        ("preset=paper", 1_587_969),
        ("preset=released", 1_708_415),
        ("dataset=ovis,plus", 1_582_834),
    ],
)
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

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
from vis_jax.detectors.condinst import FindRule, MaskLoss
from vis_jax.detectors.fcos_targets import TargetRule
from vis_jax.losses.fcos import FcosLosses
from vis_jax.structures import Clip
from vis_jax.systems import SYSTEMS, condinst
from vis_jax.systems.condinst import build, build_model


def _config(changes=None, name="condinst_shapes"):
    return recipe(name, "debug", changes)


_NO_GRADIENT = {
    # Of the coarsest levels no location stands for an object of the debug size.
    *(f"detector/head/scale{level}" for level in (5, 6, 7)),
    # Group norm makes zeros of the coarsest level: one cell, groups of one channel.
    *(f"detector/fpn/output7/{leaf}" for leaf in ("kernel", "bias")),
}


@functools.cache
def _checked() -> Checked:
    """With batch norm in the backbone, too; all that is found is shown."""
    changes = {"model.backbone.norm": "batch", "test.score": 0.0}
    config = _config(changes, "condinst_r50")
    return check_system(build, config, no_gradient=_NO_GRADIENT)


@pytest.mark.slow
def test_keeps_the_contract_of_systems():
    config, found = _config(name="condinst_r50"), _checked().predictions
    assert found.valid.shape == (config.test.tracks,)
    assert found.mask_logits.shape[1:] == (config.test.objects, 16, 24)
    assert (found.slots >= 0).any()
    shown = found.mask_boxes[found.slots >= 0]
    np.testing.assert_array_equal(shown, np.tile([0, 0, 96, 64], (len(shown), 1)))


@pytest.mark.slow
def test_statistics_of_the_batch_are_handed_on_without_padded_frames():
    checked = _checked()
    params, batch = checked.variables["params"], checked.batch
    valid = batch.frame_valid & (np.arange(batch.frame_valid.shape[1]) == 0)
    batch = batch._replace(frame_valid=valid)
    (_, aux), _ = checked.loss_and_gradient(params, batch)
    before = checked.variables["batch_stats"]
    assert jax.tree.structure(aux.batch_stats) == jax.tree.structure(before)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), aux.batch_stats, before)
    assert all(jax.tree.leaves(moved))
    assert {"backbone", "detector"} == set(moved)
    images = np.where(valid[..., None, None, None], batch.images, 255 - batch.images)
    (_, junk), _ = checked.loss_and_gradient(params, batch._replace(images=images))
    jax.tree.map(np.testing.assert_array_equal, aux.batch_stats, junk.batch_stats)


@pytest.mark.slow
def test_without_objects_the_loss_is_finite():
    checked = _checked()
    none = np.zeros_like(checked.batch.present)
    (loss, aux), gradient = checked.loss_and_gradient(
        checked.variables["params"], checked.batch._replace(present=none)
    )
    assert np.isfinite(loss)
    assert {name: float(x) for name, x in aux.terms.items() if x} == {
        "box_class": float(loss)
    }
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_frame_by_frame_equals_the_whole_video():
    check_frame_by_frame(_checked())


@pytest.mark.slow
def test_updates_bring_the_loss_down():
    check_learns(_checked(), updates=10, rate=0.1, mean_of=3)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("condinst_r50", 23_508_032), ("condinst_r101", 42_500_160)],
)
def test_parameters_of_the_published_detector(name, backbone):
    config = recipe(name, None)
    shapes = jax.eval_shape(
        build(config).init, jax.random.key(0), first_batch(_config())
    )

    def count(tree):
        return sum(x.size for x in jax.tree.leaves(tree))

    params = shapes["params"]
    assert count(params["backbone"]) == backbone
    parts = {name: count(tree) for name, tree in params["detector"].items()}
    # The head of IAI, 7,329,783 with the masks, less its identities.
    assert parts == {"fpn": 3_868_672, "head": 5_215_963, "masks": 1_477_384}


def test_bfloat16_computes_without_hidden_promotion():
    """Traced under strict promotion: a mix of dtypes would be an error."""
    config = _config({"compute_dtype": "bfloat16"})
    system, batch = build(config), first_batch(config)
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    loss, _ = jax.eval_shape(system.loss, variables, batch, jax.random.key(0))
    assert loss.dtype == jnp.float32
    clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
    _, found = jax.eval_shape(system.step, variables, system.start(clip), clip)
    assert found.mask_logits.dtype == jnp.float32


@pytest.mark.parametrize("tracker", ["deep_sort", "seq"])
def test_other_trackers_link_it(tracker):
    config = _config({"test.tracker": tracker})
    system, batch = build(config), first_batch(config)
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
    _, found = jax.eval_shape(system.step, variables, system.start(clip), clip)
    assert found.slots.shape == (len(clip.images), config.test.objects)


def test_detections_have_the_shapes_of_none():
    config = _config()
    detector, batch = SYSTEMS["condinst"].detector(config), first_batch(config)
    variables = jax.eval_shape(detector.init, jax.random.key(0), batch)

    def look(variables, images, size):
        return detector.detect(
            variables, detector.features(variables, images, size), size
        )

    found = jax.eval_shape(look, variables, batch.images[0], batch.sizes[0])
    empty = jax.eval_shape(lambda: detector.empty(len(batch.images[0])))
    for name, ours in found._asdict().items():
        theirs = getattr(empty, name)
        assert ours.dtype == theirs.dtype, name
        # Masks have the size of the canvas, which nobody knows before a frame.
        axes = 2 if name == "mask_logits" else None
        assert ours.shape[:axes] == theirs.shape[:axes], name


def test_each_weight_is_that_of_its_term_and_each_rule_arrives(monkeypatch):
    rules, most = [], []
    one = jnp.float32(1.0)
    targets_of = condinst.dense_targets

    def targets(*args, rule, **kwargs):
        rules.append(rule)
        return targets_of(*args, rule=rule, **kwargs)

    def masks(*_, **kwargs):
        most.append(kwargs["most"])
        return MaskLoss(one, one)

    monkeypatch.setattr(condinst, "dense_targets", targets)
    monkeypatch.setattr(
        condinst, "fcos_losses", lambda *_, **__: FcosLosses(*[one] * 3)
    )
    monkeypatch.setattr(condinst, "mask_loss", masks)
    weights = dict(box_class=2.0, box=3.0, centre=4.0, mask=5.0)
    rule = dict(radius=2.5, ranges=(8.0, 9.0, 10.0, 11.0))
    changes = weights | rule | dict(positives=7)
    config = _config({f"loss.{name}": value for name, value in changes.items()})
    system, batch = build(config), first_batch(config)
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    # Compiles in no time, as nothing depends on the network.
    loss, aux = jax.jit(system.loss)(zeros, batch, jax.random.key(0))
    assert {name: float(term) for name, term in aux.terms.items()} == weights
    assert float(loss) == sum(weights.values())
    assert set(aux.notes) == {"positives_left_out"}
    assert (rules, most) == ([TargetRule(**rule)], [7])


def test_settings_reach_the_network():
    model = build_model(recipe("condinst_r50", None))
    assert model.rule == FindRule(0.05, 0.5, 200, 10)
    assert model.detector.head.convs == model.detector.masks.convs == 4
    assert model.detector.fpn.extra == "relu_conv"
    assert model.style == "vgg"
    assert build_model(_config()).style == "torch"
    coco = build_model(recipe("condinst_r101", "dataset=coco"))
    assert coco.rule == FindRule(0.05, 0.6, 1_000, 100)
    small = build_model(
        _config(
            {
                "model.head.convs": 3, "model.masks.dim": 5, "model.masks.convs": 6,
                "model.masks.channels": 7,
            }
        )
    ).detector  # fmt: skip
    assert (small.head.convs, small.head.filters) == (3, 9 * 8 + 64 + 8 + 17)
    assert small.fpn.extra == "relu_conv"
    masks = small.masks
    assert (masks.dim, masks.convs, masks.channels) == (5, 6, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.num_classes": 0}, "model.num_classes: expected at least 1, got 0"),
        (
            {"loss.ranges": (64.0, 32.0, 128.0, 256.0)},
            "loss.ranges: expected 4 in ascending order",
        ),
        ({"loss.ranges": (64.0,)}, "loss.ranges: expected 4 in ascending order"),
        ({"test.tracker": "osmn"}, "test.tracker: expected one of"),
    ],
)
def test_settings_that_do_not_fit_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        build(_config(changes))

"""Hybrid Task Cascade: what `tests/golden/htc.py` does not compare with the source."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.backbones import build_backbone, resnet
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.cascade import (
    Cascade,
    CascadeFeatures,
    StageOutput,
    StageOutputs,
    cascade_parts,
)
from vis_jax.detectors.cascade_settings import Settings, build_rules
from vis_jax.detectors.two_stage import BOX_SIDE, MASK_SIDE
from vis_jax.ops.roi_align import ALIGNED, LEGACY, Adaptive
from vis_jax.settings import read_settings

RULE = DetectRule(score_threshold=0.1, iou_threshold=0.5, least_side=0.0, size=4)
PUBLISHED = DetectRule(0.1, 0.5, 0.0, 20)
SMALL = dict(
    num_classes=3,
    backbone=dict(variant="thin", norm="group"),
    fpn=dict(dim=8),
    rpn=dict(dim=8, proposals=6),
    regions=dict(sampled=4, positives=2),
    box_head=dict(width=12),
    mask_head=dict(dim=6, convs=1),
    semantic=dict(dim=8, convs=1),
    roi_samples=1,
)
SIZE = np.array([60, 64], np.int32)
BOXES = np.array([[[0.0, 0, 20, 30], [8, 4, 60, 60]]], np.float32)


def settings_of(**changes) -> Settings:
    return read_settings(Settings, SMALL | changes)


def model_of(**changes) -> Cascade:
    return Cascade(**cascade_parts(settings_of(**changes), RULE, jnp.dtype("float32")))


def shapes_of(model, canvas=(64, 64)):
    init = functools.partial(model.init, method="look")
    images = jax.ShapeDtypeStruct((1, *canvas, 3), jnp.float32)
    size = jax.ShapeDtypeStruct((2,), jnp.int32)
    return jax.eval_shape(init, jax.random.key(0), images, size)


def numbers(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def published():
    """With ResNet-50 for YouTube-VIS: the network and the shapes of its variables."""
    settings = read_settings(Settings, dict(num_classes=40, rpn=dict(proposals=1000)))
    model = Cascade(**cascade_parts(settings, PUBLISHED, jnp.dtype("float32")))
    return model, shapes_of(model, (96, 160))


@pytest.mark.parametrize(
    ("backbone", "count"),
    [
        (dict(variant="50"), 80_067_959),
        (dict(variant="101"), 99_060_087),
        (dict(variant="x101_64x4d"), 137_966_199),
        (dict(variant="x101_64x4d", deform_stages=(3, 4, 5)), 143_109_267),
    ],
)
def test_as_many_parameters_as_published(published, backbone, count):
    params = published[1]["params"]
    settings = resnet.Settings(norm="frozen_stats", **backbone)
    init = build_backbone(settings, jnp.dtype("float32")).init
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    backbone = jax.eval_shape(init, jax.random.key(0), images)["params"]
    heads = {name: x for name, x in params.items() if name != "backbone"}
    assert numbers(heads) + numbers(backbone) == count
    assert numbers(params["semantic_head"]) == 2_765_609


def test_as_many_operations_as_published(published):
    model, variables = published
    images = jax.ShapeDtypeStruct((1, 384, 640, 3), jnp.float32)
    size = jax.ShapeDtypeStruct((2,), jnp.int32)
    look = jax.jit(functools.partial(model.apply, method="look"))
    flops = look.lower(variables, images, size).cost_analysis()["flops"]
    # 131 G multiplications with as many additions.
    np.testing.assert_allclose(flops, 0.262e12, rtol=0.02)


@pytest.fixture(scope="module")
def small():
    """A network, random variables, and what it makes of random levels, by name."""
    model = model_of()
    rng = np.random.default_rng(0)

    def draw(leaf):
        share = 1.5 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return (share * rng.normal(size=leaf.shape)).astype(np.float32)

    variables = jax.tree.map(draw, dict(shapes_of(model)))
    levels = tuple(
        rng.normal(size=(1, side, side, 8)).astype(np.float32)
        for side in (16, 8, 4, 2, 1)
    )
    out = jax.device_get(_run(model, variables, levels))
    return model, variables, out


@functools.partial(jax.jit, static_argnums=0)
def _run(model, variables, levels):
    boxes, size = jnp.asarray(BOXES), jnp.asarray(SIZE)

    def everything(self):
        logits, semantic = self.semantic_head(levels)
        with_semantic = CascadeFeatures(levels, semantic, logits)
        without = CascadeFeatures(levels, None, None)
        return dict(
            anchors=self.anchors(levels),
            box_pooled=self.pool(levels, boxes, BOX_SIDE),
            box_both=self.pool_both(with_semantic, boxes, BOX_SIDE),
            mask_pooled=self.pool(levels, boxes, MASK_SIDE),
            mask_both=self.pool_both(with_semantic, boxes, MASK_SIDE),
            mask_alone=self.pool_both(without, boxes, MASK_SIDE),
            semantic=self.pool_semantic(semantic, boxes, MASK_SIDE),
            features=with_semantic,
            masks=self.all_masks(with_semantic, boxes),
            last=self.mask_logits(2, with_semantic, boxes),
            found=self.find_classes(with_semantic, size),
            described=self.describe(with_semantic, boxes),
        )

    return model.apply(variables, method=everything)


def test_only_later_mask_heads_see_the_one_before(small):
    model, variables, out = small
    params = variables["params"]
    heads = [set(params[f"mask_heads_{stage}"]) for stage in range(3)]
    assert heads[0] == {"conv1", "upsample", "mask_logits"}
    assert heads[1] == heads[2] == {*heads[0], "flow"}

    def last(params):
        features, boxes = jax.tree.map(jnp.asarray, (out["features"], BOXES))
        logits = model.apply(
            {"params": params}, 2, features, boxes, method="mask_logits"
        )
        return jnp.square(logits).sum()

    gradient = compiled(jax.grad(last))(params)
    # Features flow, not predictions.
    first = gradient["mask_heads_0"]
    assert np.abs(first["conv1"]["kernel"]).max() > 0
    assert not first["upsample"]["kernel"].any()
    assert np.abs(gradient["mask_heads_1"]["flow"]["kernel"]).max() > 0
    np.testing.assert_allclose(out["masks"][2], out["last"], rtol=1e-5, atol=1e-5)


def test_semantic_features_are_added_for_boxes_and_masks(small):
    out = small[2]
    semantic = out["semantic"]
    assert np.abs(semantic).max() > 0.1
    both = out["mask_pooled"] + semantic
    np.testing.assert_allclose(out["mask_both"], both, rtol=1e-5, atol=1e-6)
    part = MASK_SIDE // BOX_SIDE
    split = semantic.reshape(*semantic.shape[:2], BOX_SIDE, part, BOX_SIDE, part, -1)
    both = out["box_pooled"] + split.mean(axis=(3, 5))
    np.testing.assert_allclose(out["box_both"], both, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out["mask_alone"], out["mask_pooled"])


def test_anchors_lie_around_the_corners_of_cells(small):
    anchors = small[2]["anchors"][: 16 * 16 * 3].reshape(16, 16, 3, 4)
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    columns, rows = np.meshgrid(4.0 * np.arange(16), 4.0 * np.arange(16))
    np.testing.assert_allclose(centres[..., 0], columns[..., None].repeat(3, -1))
    np.testing.assert_allclose(centres[..., 1], rows[..., None].repeat(3, -1))
    sides = anchors[0, 0, :, 2:] - anchors[0, 0, :, :2]
    np.testing.assert_allclose(sides.prod(-1), 32.0**2, rtol=1e-6)  # not rounded


def test_objects_are_described_and_padding_has_zeros(small):
    found, probs = small[2]["found"]
    valid = found.valid[0]
    assert valid.any()
    assert found.mask_logits.shape == (1, RULE.size, 28, 28)
    assert found.embeds.shape == (1, RULE.size, 0)
    best = probs[0, np.arange(RULE.size), np.minimum(found.labels[0], 2)]
    np.testing.assert_array_equal(found.scores[0], np.where(valid, best, 0))
    assert (probs.sum(-1) <= 1 + 1e-6).all()
    assert np.abs(found.mask_logits).max() < 0.5
    np.testing.assert_allclose(
        np.linalg.norm(found.descriptors[0], axis=-1), valid, rtol=1e-5, atol=1e-6
    )
    for x in (found.boxes, found.descriptors, found.mask_logits, probs):
        assert not x[0][~valid].any()
    assert (found.boxes[..., 3] <= SIZE[0]).all()
    length = np.linalg.norm(small[2]["described"].descriptors, axis=-1)
    np.testing.assert_allclose(length, 1.0, rtol=1e-5)


def test_boxes_move_by_the_scale_of_their_stage():
    model = model_of()
    refine = compiled(
        functools.partial(model.apply, {}, method="refine"), static_argnums=0
    )
    deltas = np.array([[[1.0, 0, 0, 0], [1, 0, 0, 1]]], np.float32)
    sizes = SIZE[None]
    first = refine(0, deltas, BOXES, sizes)
    np.testing.assert_allclose(first[0, 0], [2, 0, 22, 30], rtol=1e-6)
    last = refine(2, deltas, BOXES, sizes)
    np.testing.assert_allclose(last[0, 0], [0.66, 0, 20.66, 30], rtol=1e-5)
    # Higher by exp(0.067) around the middle at y = 32, cut at the end of the content.
    low = 32 - 28 * np.exp(0.067)
    expected = [8 + 0.033 * 52, low, 60 + 0.033 * 52, 60]
    np.testing.assert_allclose(last[0, 1], expected, rtol=1e-5)


def test_the_mean_of_logits_decides():
    logits = np.log(np.array([[0.9, 0.05, 0.04, 0.01], [0.2, 0.5, 0.2, 0.1]]))
    outputs = [
        StageOutput(x[None].astype(np.float32), np.zeros((1, 2, 4), np.float32))
        for x in (logits, logits[::-1], logits)
    ]
    stages = StageOutputs((BOXES,) * 3 + (BOXES + 1,), tuple(outputs))
    choose = compiled(functools.partial(model_of().apply, {}, method="choose"))
    found, probs = choose(stages, np.array([[True, False]]))
    mean = np.exp((2 * logits[0] + logits[1]) / 3)
    mean /= mean.sum()
    expected = mean[[0, 1]]  # those above the threshold
    assert (mean > RULE.score_threshold).tolist() == [True, True, False, False]
    np.testing.assert_allclose(found.scores[0], [*expected, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(found.labels[0], [0, 1, 3, 3])
    np.testing.assert_array_equal(found.boxes[0, :2], BOXES[0, [0, 0]] + 1)
    np.testing.assert_allclose(probs[0, 0], mean[:3], rtol=1e-5)


def test_without_semantic_branch_nothing_of_it_is_left():
    model = model_of(semantic=dict(enabled=False))
    shapes = shapes_of(model)
    assert "semantic_head" not in shapes["params"]
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    features = jax.eval_shape(
        functools.partial(model.apply, method="features"), shapes, images
    )
    assert features.semantic is None
    assert features.semantic_logits is None


def test_the_network_computes_in_the_dtype_asked_for():
    """Predictions are float32, whatever the dtype of the features."""
    model = Cascade(**cascade_parts(settings_of(), RULE, jnp.dtype("bfloat16")))
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    size = jax.ShapeDtypeStruct((2,), jnp.int32)
    variables = shapes_of(model)
    dtypes = {x.dtype for x in jax.tree.leaves(variables["params"])}
    assert dtypes == {jnp.dtype("float32")}
    read, look = (
        functools.partial(model.apply, method=name) for name in ("features", "look")
    )
    features = jax.eval_shape(read, variables, images)
    assert features.semantic.dtype == features.levels[0].dtype == jnp.bfloat16
    found = jax.eval_shape(look, variables, images, size)
    assert found.mask_logits.dtype == found.descriptors.dtype == jnp.float32


def test_settings_reach_the_network():
    changes = dict(
        semantic=dict(classes=7, dim=5, convs=2),
        mask_head=dict(dim=4, convs=2),
        box_head=dict(width=9),
        stages=dict(
            iou=(0.5, 0.6), centre_std=(0.1, 0.2), side_std=(0.3, 0.4), weight=(1, 1)
        ),
    )
    params = shapes_of(model_of(**changes))["params"]
    semantic = params["semantic_head"]
    assert semantic["class_logits"]["kernel"].shape == (1, 1, 5, 7)
    assert semantic["embedding"]["kernel"].shape == (1, 1, 5, 8)
    assert "conv2" in semantic
    assert params["box_heads_1"]["deltas"]["kernel"].shape == (9, 4)
    assert params["mask_heads_1"]["flow"]["kernel"].shape == (1, 1, 4, 8)
    assert "mask_heads_2" not in params
    rules = build_rules(settings_of(**changes), RULE)
    assert [x.stds for x in rules.roi_coders] == [
        (0.1, 0.1, 0.3, 0.3),
        (0.2, 0.2, 0.4, 0.4),
    ]


def test_points_of_regions_are_a_number_or_those_of_the_conventions():
    assert build_rules(settings_of(), RULE).roi_samples == 1
    rules = build_rules(settings_of(roi_samples=0), RULE)
    assert isinstance(rules.roi_samples, Adaptive)
    assert rules.roi_convention == ALIGNED
    old = build_rules(settings_of(conventions="mmdetection"), RULE)
    assert (old.roi_convention, old.anchors.centre) == (LEGACY, 0.5)


@pytest.mark.parametrize("name", ["centre_std", "side_std", "weight"])
def test_stages_of_unequal_number_are_an_error(name):
    with pytest.raises(ValueError, match=rf"stages\.{name}: expected 3 numbers"):
        settings_of(stages={name: (0.1, 0.2)})
    with pytest.raises(ValueError, match=r"stages\.iou: expected at least one"):
        settings_of(stages=dict(iou=()))

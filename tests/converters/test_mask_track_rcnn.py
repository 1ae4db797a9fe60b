import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.association.track_head import TrackHead
from vis_jax.backbones.fpn import FPN
from vis_jax.backbones.resnet import ResNet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.box_head import BoxHead
from vis_jax.detectors.mask_head import MaskHead
from vis_jax.detectors.rpn import RPN
from vis_jax.params import flatten

DIM, WIDTH, CLASSES = 8, 16, 4  # of the pyramid, of linear layers, without background
KIND = "mask_track_rcnn"
CLASS_LAYERS = {
    f"params/{layer}/{leaf}"
    for layer in ("box_head/class_logits", "box_head/deltas", "mask_head/mask_logits")
    for leaf in ("kernel", "bias")
}


def official(dim=DIM, width=WIDTH, classes=CLASSES + 1, track=True):
    """Shapes by name as the released code has them, R50; `classes` with background."""
    shapes = {"backbone.conv1.weight": (64, 3, 7, 7)}
    norms = {"backbone.bn1": 64}
    inputs = 64
    for layer, (blocks, p) in enumerate(
        zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), start=1
    ):
        for i in range(blocks):
            block = f"backbone.layer{layer}.{i}"
            shapes[f"{block}.conv1.weight"] = (p, inputs, 1, 1)
            shapes[f"{block}.conv2.weight"] = (p, p, 3, 3)
            shapes[f"{block}.conv3.weight"] = (4 * p, p, 1, 1)
            norms |= {f"{block}.bn1": p, f"{block}.bn2": p, f"{block}.bn3": 4 * p}
            if i == 0:
                shapes[f"{block}.downsample.0.weight"] = (4 * p, inputs, 1, 1)
                norms[f"{block}.downsample.1"] = 4 * p
            inputs = 4 * p
    for norm, channels in norms.items():
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{leaf}"] = (channels,)
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes | heads(dim, width, classes, track=track)


def heads(dim, width, classes, *, track):
    pooled = 49 * dim
    layers = {f"rpn_head.rpn_{n}": (c, dim, 1, 1) for n, c in (("cls", 3), ("reg", 12))}
    layers["rpn_head.rpn_conv"] = (dim, dim, 3, 3)
    for i in range(4):
        layers[f"neck.lateral_convs.{i}.conv"] = (dim, 256 * 2**i, 1, 1)
        layers[f"neck.fpn_convs.{i}.conv"] = (dim, dim, 3, 3)
        layers[f"mask_head.convs.{i}.conv"] = (dim, dim, 3, 3)
    layers["mask_head.upsample"] = (dim, dim, 2, 2)
    layers["mask_head.conv_logits"] = (classes, dim, 1, 1)
    layers["bbox_head.shared_fcs.0"] = (width, pooled)
    layers["bbox_head.shared_fcs.1"] = (width, width)
    layers["bbox_head.fc_cls"] = (classes, width)
    layers["bbox_head.fc_reg"] = (4 * classes, width)
    if track:
        layers["track_head.fcs.0"] = (width, pooled)
        layers["track_head.fcs.1"] = (width, width)
    return {
        f"{name}.{leaf}": shape if leaf == "weight" else shape[:1]
        for name, shape in layers.items()
        for leaf in ("weight", "bias")
    }


def generated(shapes):
    """Values by name; those of the backbone are one number each, to save memory."""

    def draw(name, shape):
        seed = zlib.crc32(name.encode())
        if name.startswith("backbone."):
            return np.broadcast_to(np.float32(seed % 9973), shape)
        values = np.random.default_rng(seed).normal(size=shape)
        return (values / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes.items()}


def blank(shapes):
    return {name: np.broadcast_to(np.float32(0), x) for name, x in shapes.items()}


@functools.cache
def model_shapes(norm="frozen_stats", dim=DIM, width=WIDTH, classes=CLASSES):
    """Variables of the model as shapes, part by part."""

    def f32(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    stages = {f"res{i + 2}": f32(1, 16 >> i, 16 >> i, 256 << i) for i in range(4)}
    parts = {
        "backbone": (ResNet("50", norm=norm), f32(1, 64, 64, 3)),
        "fpn": (FPN(dim), stages),
        "rpn": (RPN(dim, ratios=3), [f32(1, 4, 4, dim)]),
        "box_head": (BoxHead(classes, width), f32(2, 7, 7, dim)),
        "mask_head": (MaskHead(classes, dim, convs=4), f32(2, 14, 14, dim)),
        "track_head": (TrackHead(width), f32(2, 7, 7, dim)),
    }
    tree = {}
    for name, (module, x) in parts.items():
        shapes = jax.eval_shape(module.init, jax.random.key(0), x)
        for collection, part in shapes.items():
            tree.setdefault(collection, {})[name] = part
    return tree


@functools.cache
def converted():
    weights = generated(official())
    return weights, *convert_tensors(weights, model_shapes(), KIND)


def test_every_tensor_is_used_and_every_parameter_filled():
    weights, _, report = converted()
    assert report.new == ()
    assert set(report.used) | set(report.dropped) == set(weights)
    assert all(name.endswith(".num_batches_tracked") for name in report.dropped)


def test_the_full_size_has_the_published_number_of_parameters():
    official_shapes = official(256, 1024, 41)
    shapes = model_shapes(dim=256, width=1024, classes=40)
    _, report = convert_tensors(blank(official_shapes), shapes, KIND)
    assert report.new == ()
    counts = {
        part: sum(
            int(np.prod(shape))
            for name, shape in official_shapes.items()
            if name.startswith(part) and "running" not in name and "num_b" not in name
        )
        for part in ("backbone", "neck", "rpn_head", "bbox_head", "track", "mask")
    }
    assert [*counts.values()] == [
        23_508_032, 3_344_384, 593_935, 14_105_805, 13_895_680, 2_633_257
    ]  # fmt: skip
    ours = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    # Here the background has no box, 4 x 1025, and no mask, 257.
    assert ours == sum(counts.values()) - 4 * 1025 - 257


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("backbone.bn1.running_var", "constants/backbone/stem/conv1/norm/var"),
        ("backbone.layer1.0.conv1.weight", "params/backbone/res2_0/conv1/kernel"),
        ("backbone.layer3.5.bn2.weight", "params/backbone/res4_5/conv2/norm/scale"),
        ("backbone.layer4.2.bn3.bias", "params/backbone/res5_2/conv3/norm/bias"),
        (
            "backbone.layer2.0.downsample.1.running_mean",
            "constants/backbone/res3_0/shortcut/norm/mean",
        ),
        ("neck.lateral_convs.0.conv.bias", "params/fpn/lateral2/bias"),
        ("neck.fpn_convs.3.conv.bias", "params/fpn/output5/bias"),
        ("rpn_head.rpn_conv.bias", "params/rpn/conv/bias"),
        ("rpn_head.rpn_cls.bias", "params/rpn/objectness/bias"),
        ("rpn_head.rpn_reg.bias", "params/rpn/deltas/bias"),
        ("mask_head.convs.3.conv.bias", "params/mask_head/conv4/bias"),
    ],
)
def test_tensors_go_where_they_belong(source, target):
    weights, variables, report = converted()
    assert report.used[source] == (target,)
    theirs, ours = weights[source], flatten(variables)[target]
    np.testing.assert_array_equal(np.unique(ours), np.unique(theirs))


def test_the_norms_may_be_constants():
    _, report = convert_tensors(converted()[0], model_shapes("frozen_batch"), KIND)
    path = report.used["backbone.layer3.5.bn2.weight"]
    assert path == ("constants/backbone/res4_5/conv2/norm/scale",)


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def pooled(side):
    """Features of three regions, channels first."""
    x = np.random.default_rng(side).normal(size=(3, DIM, side, side))
    return x.astype(np.float32)


def apply(module, part, x):
    variables = converted()[1]
    return module.apply(
        {"params": variables["params"][part]}, jnp.asarray(x.transpose(0, 2, 3, 1))
    )


def test_the_box_head_computes_what_the_source_does():
    weights, x = converted()[0], pooled(7)
    hidden = np.maximum(linear(weights, "bbox_head.shared_fcs.0", x.reshape(3, -1)), 0)
    hidden = np.maximum(linear(weights, "bbox_head.shared_fcs.1", hidden), 0)
    logits = linear(weights, "bbox_head.fc_cls", hidden)  # the background is first
    boxes = linear(weights, "bbox_head.fc_reg", hidden).reshape(3, CLASSES + 1, 4)
    ours = apply(BoxHead(CLASSES, WIDTH), "box_head", x)
    np.testing.assert_allclose(
        np.roll(ours.class_logits, 1, axis=1), logits, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(ours.deltas, boxes[:, 1:], rtol=1e-4, atol=1e-5)


def test_the_track_head_computes_what_the_source_does():
    weights, x = converted()[0], pooled(7)
    hidden = np.maximum(linear(weights, "track_head.fcs.0", x.reshape(3, -1)), 0)
    expected = linear(weights, "track_head.fcs.1", hidden)
    ours = apply(TrackHead(WIDTH), "track_head", x)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_mask_head_computes_what_the_source_does():
    weights, x = converted()[0], pooled(4)
    features = x
    for index in range(4):
        name = f"mask_head.convs.{index}.conv"
        wide = np.pad(features, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))
        features = np.einsum("nchwij,dcij->ndhw", windows, weights[f"{name}.weight"])
        features = features + weights[f"{name}.bias"][:, None, None]
        features = np.maximum(features, 0)
    doubled = np.zeros((3, DIM, 8, 8), np.float32)
    for i in range(2):
        for j in range(2):
            doubled[:, :, i::2, j::2] = np.einsum(
                "nchw,cd->ndhw",
                features,
                weights["mask_head.upsample.weight"][..., i, j],
            )
    doubled = doubled + weights["mask_head.upsample.bias"][:, None, None]
    moved = np.maximum(doubled, 0).transpose(0, 2, 3, 1)
    logits = moved @ weights["mask_head.conv_logits.weight"][:, :, 0, 0].T
    logits = logits + weights["mask_head.conv_logits.bias"]
    ours = apply(MaskHead(CLASSES, DIM, convs=4), "mask_head", x)
    np.testing.assert_allclose(ours, logits[..., 1:], rtol=1e-4, atol=1e-5)


def test_coco_weights_leave_classes_and_track_head_new():
    shapes = official(classes=81, track=False)
    _, report = convert_tensors(blank(shapes), model_shapes(), KIND)
    track = {p for p in flatten(model_shapes()) if p.startswith("params/track_head/")}
    assert set(report.new) == CLASS_LAYERS | track
    assert "bbox_head.fc_reg.weight" in report.dropped


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("track_head.fcs.0.weight", "track_head.fc.weight", "first release"),
        ("rpn_head.rpn_cls.bias", "detector.rpn_head.rpn_cls.bias", "mmtracking"),
        ("bbox_head.fc_cls.bias", "roi_head.bbox_head.fc_cls.bias", "mmdetection 2.0"),
    ],
)
def test_names_of_other_models_are_errors(old, new, message):
    weights = blank(official())
    weights[new] = weights.pop(old)
    with pytest.raises(ValueError, match=rf"got {new!r}.*{message}"):
        convert_tensors(weights, model_shapes(), KIND)


def test_all_misfits_are_listed():
    weights = blank(official())
    del weights["track_head.fcs.1.bias"]  # a part of a head is not a head to leave new
    weights["neck.fpn_convs.0.conv.bias"] = np.zeros(DIM + 1, np.float32)
    weights["bbox_head.fc_extra.weight"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="4 misfits") as error:
        convert_tensors(weights, model_shapes(), KIND)
    for name in ("track_head/fc2/bias", "fpn_output2", "fpn/output2/bias", "fc_extra"):
        assert name in str(error.value)

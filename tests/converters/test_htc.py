import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.converters.stored import check_whole
from vis_jax.converters.load import convert_tensors
from vis_jax.converters.rules import MisfitError
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.cascade import Cascade, cascade_parts
from vis_jax.detectors.cascade_settings import Settings
from vis_jax.params import flatten, unflatten
from vis_jax.settings import read_settings

KIND, CLASSES, STUFF = "htc", 80, 183
DIM, WIDTH = 8, 16  # of the networks here; 256 and 1024 of the published ones
NORMS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
DEFORMABLE = dict(variant="x101_64x4d", deform_stages=(3, 4, 5))


def official(dim=DIM, width=WIDTH):
    """Shapes by name of mmdetection 2's X-101-64x4d-DCN HTC."""
    return backbone() | {
        f"{name}.{leaf}": shape if leaf == "weight" else shape[:1]
        for name, shape in layers(dim, width).items()
        for leaf in ("weight", "bias")
    }


def backbone():
    shapes = {"backbone.conv1.weight": (64, 3, 7, 7)}
    norms, inputs = {"backbone.bn1": 64}, 64
    for layer, blocks in enumerate((3, 4, 23, 3), start=1):
        inner = 128 * 2**layer
        for i in range(blocks):
            block = f"backbone.layer{layer}.{i}"
            shapes[f"{block}.conv1.weight"] = (inner, inputs, 1, 1)
            shapes[f"{block}.conv2.weight"] = (inner, inner // 64, 3, 3)
            shapes[f"{block}.conv3.weight"] = (inner, inner, 1, 1)
            if layer > 1:
                shapes[f"{block}.conv2.conv_offset.weight"] = (18, inner, 3, 3)
                shapes[f"{block}.conv2.conv_offset.bias"] = (18,)
            norms |= {f"{block}.bn{n}": inner for n in (1, 2, 3)}
            if i == 0:
                shapes[f"{block}.downsample.0.weight"] = (inner, inputs, 1, 1)
                norms[f"{block}.downsample.1"] = inner
            inputs = inner
    for norm, channels in norms.items():
        for leaf in NORMS:
            counter = leaf == "num_batches_tracked"
            shapes[f"{norm}.{leaf}"] = () if counter else (channels,)
    return shapes


def layers(dim, width):
    """Shapes of the weights of layers that have a bias, too."""
    found = {f"rpn_head.rpn_{n}": (c, dim, 1, 1) for n, c in (("cls", 3), ("reg", 12))}
    found["rpn_head.rpn_conv"] = (dim, dim, 3, 3)
    for i in range(4):
        found[f"neck.lateral_convs.{i}.conv"] = (dim, 256 * 2**i, 1, 1)
        found[f"neck.fpn_convs.{i}.conv"] = (dim, dim, 3, 3)
        found[f"roi_head.semantic_head.convs.{i}.conv"] = (dim, dim, 3, 3)
    for i in range(5):
        found[f"roi_head.semantic_head.lateral_convs.{i}.conv"] = (dim, dim, 1, 1)
    found["roi_head.semantic_head.conv_embedding.conv"] = (dim, dim, 1, 1)
    found["roi_head.semantic_head.conv_logits"] = (STUFF, dim, 1, 1)
    for stage in range(3):
        box, mask = f"roi_head.bbox_head.{stage}", f"roi_head.mask_head.{stage}"
        found[f"{box}.shared_fcs.0"] = (width, 49 * dim)
        found[f"{box}.shared_fcs.1"] = (width, width)
        found[f"{box}.fc_cls"] = (CLASSES + 1, width)
        found[f"{box}.fc_reg"] = (4, width)
        for i in range(4):
            found[f"{mask}.convs.{i}.conv"] = (dim, dim, 3, 3)
        found[f"{mask}.upsample"] = (dim, dim, 2, 2)
        found[f"{mask}.conv_logits"] = (CLASSES, dim, 1, 1)
        if stage:
            found[f"{mask}.conv_res.conv"] = (dim, dim, 1, 1)
    return found


def generated(shapes):
    """Values by name; those of the backbone are one number each, to save memory."""

    def draw(name, shape):
        seed = zlib.crc32(name.encode())
        if name.startswith("backbone."):
            return np.broadcast_to(np.float32(seed % 9973), shape)
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes.items()}


def old_file(tensors):
    """The same model as a file of mmdetection 1.x: names, and background first."""
    found = {}
    for name, x in tensors.items():
        if name.endswith(("fc_cls.weight", "fc_cls.bias")):
            x = np.roll(x, 1, axis=0)
        if ".mask_head." in name and ".conv_logits." in name:
            x = np.concatenate([x[:1], x])  # a mask of the background
        name = name.removeprefix("roi_head.").replace(".conv_offset.", "_offset.")
        found[name] = x
    return found


@functools.cache
def shapes_of():
    settings = read_settings(
        Settings,
        dict(
            num_classes=CLASSES,
            backbone=DEFORMABLE | dict(norm="frozen_stats"),
            fpn=dict(dim=DIM),
            rpn=dict(dim=DIM, proposals=8),
            regions=dict(sampled=4, positives=2),
            box_head=dict(width=WIDTH),
            mask_head=dict(dim=DIM),
            semantic=dict(classes=STUFF, dim=DIM),
        ),
    )
    rule = DetectRule(0.1, 0.5, 0.0, 4)
    model = Cascade(**cascade_parts(settings, rule, jnp.dtype("float32")))
    init = functools.partial(model.init, method="look")
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    size = jax.ShapeDtypeStruct((2,), jnp.int32)
    return dict(jax.eval_shape(init, jax.random.key(0), images, size))


@pytest.fixture(scope="module")
def tensors():
    return generated(official())


@pytest.fixture(scope="module")
def report(tensors):
    return convert_tensors(tensors, shapes_of(), KIND)[1]


def test_the_table_is_that_of_the_published_model():
    shapes = official(256, 1024)
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    assert len(sizes) == 792
    trained = {n: x for n, x in sizes.items() if ".running_" not in n}
    trained = {n: x for n, x in trained.items() if not n.endswith(NORMS[-1])}
    assert len([n for n in sizes if not n.endswith(NORMS[-1])]) == 688
    assert sum(trained.values()) == 143_299_601


def test_every_tensor_is_used_once_and_every_parameter_filled(tensors, report):
    check_whole(report, set(tensors))
    assert report.notes == ()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("backbone.bn1.weight", "params/backbone/stem/conv1/norm/scale"),
        ("backbone.layer1.0.conv2.weight", "params/backbone/res2_0/conv2/kernel"),
        (
            "backbone.layer3.22.conv2.conv_offset.bias",
            "params/backbone/res4_22/conv2/offset/bias",
        ),
        ("neck.lateral_convs.0.conv.weight", "params/fpn/lateral2/kernel"),
        ("neck.fpn_convs.3.conv.bias", "params/fpn/output5/bias"),
        ("rpn_head.rpn_conv.bias", "params/rpn/conv/bias"),
        ("roi_head.bbox_head.1.shared_fcs.0.weight", "params/box_heads_1/fc1/kernel"),
        ("roi_head.bbox_head.2.fc_reg.bias", "params/box_heads_2/deltas/bias"),
        ("roi_head.bbox_head.0.fc_cls.bias", "params/box_heads_0/class_logits/bias"),
        ("roi_head.mask_head.0.convs.0.conv.bias", "params/mask_heads_0/conv1/bias"),
        ("roi_head.mask_head.2.conv_res.conv.bias", "params/mask_heads_2/flow/bias"),
        ("roi_head.mask_head.1.upsample.bias", "params/mask_heads_1/upsample/bias"),
        (
            "roi_head.semantic_head.lateral_convs.4.conv.bias",
            "params/semantic_head/lateral6/bias",
        ),
        (
            "roi_head.semantic_head.conv_embedding.conv.bias",
            "params/semantic_head/embedding/bias",
        ),
    ],
)
def test_tensors_go_where_they_belong(tensors, report, source, target):
    assert report.used[source] == (target,)
    found = report.params[target]
    np.testing.assert_array_equal(
        np.sort(found.ravel()), np.sort(tensors[source], None)
    )


def test_files_of_1x_are_the_same_model(tensors, report):
    old = old_file(tensors)
    unused = "mask_head.0.conv_res.conv.weight"
    old[unused] = np.zeros((DIM, DIM, 1, 1), np.float32)
    found = convert_tensors(old, shapes_of(), KIND)[1]
    assert found.new == ()
    assert found.dropped.pop(unused).startswith("unused")
    assert all(name.endswith(NORMS[-1]) for name in found.dropped)
    assert found.params.keys() == report.params.keys()
    for path, x in report.params.items():
        if not path.startswith("params/backbone"):  # whose numbers come from the names
            np.testing.assert_array_equal(found.params[path], x, err_msg=path)
    assert "background was the first class" in found.notes[0]


def test_other_classes_leave_their_layers_new(tensors):
    layers = {
        *(f"params/box_heads_{stage}/class_logits" for stage in range(3)),
        *(f"params/mask_heads_{stage}/mask_logits" for stage in range(3)),
        "params/semantic_head/class_logits",
    }
    shapes = {
        path: jax.ShapeDtypeStruct((*x.shape[:-1], 40), x.dtype)
        if path.rsplit("/", 1)[0] in layers
        else x
        for path, x in flatten(shapes_of()).items()
    }
    report = convert_tensors(tensors, unflatten(shapes), KIND)[1]
    assert {path.rsplit("/", 1)[0] for path in report.new} == layers


def test_without_semantic_branch_its_tensors_are_dropped(tensors):
    shapes = shapes_of()
    heads = {n: x for n, x in shapes["params"].items() if n != "semantic_head"}
    report = convert_tensors(tensors, shapes | {"params": heads}, KIND)[1]
    assert report.new == ()
    branch = [n for n in report.dropped if n.startswith("roi_head.semantic_head.")]
    assert len(branch) == 22
    assert "model.semantic.enabled" in report.dropped[branch[0]]


def test_what_links_frames_is_new(tensors):
    shapes, leaf = shapes_of(), jax.ShapeDtypeStruct((2,), jnp.float32)
    parts = {"track_head": {"fc1": leaf}, "propagation": {"offset3": leaf}}
    params = shapes["params"] | parts | {"refinement": {"conv1": leaf}}
    report = convert_tensors(tensors, shapes | {"params": params}, KIND)[1]
    assert {path.split("/")[1] for path in report.new} == {*parts, "refinement"}


def test_a_missing_stage_is_an_error(tensors):
    some = {n: x for n, x in tensors.items() if "_head.2." not in n}
    with pytest.raises(MisfitError, match=r"box_heads_2/\w+/\w+': no source"):
        convert_tensors(some, shapes_of(), KIND)

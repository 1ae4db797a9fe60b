"""Models under published names: the files of the libraries that the names are of."""

import functools
import re

import jax
import numpy as np
import pytest

from tests.converters import test_htc as htc
from tests.converters import test_iai as iai
from tests.converters import test_mask_track_rcnn as mask_track_rcnn
from tests.converters import test_vgg as vgg
from tests.converters import test_videomt as videomt
from tests.converters.stored import blank
from tests.golden import mask2former, mask_rcnn, rgnn_vis
from tests.golden.cases import load
from vis_jax.converters.load import KINDS, convert_tensors
from vis_jax.converters.publish import publish
from vis_jax.params import flatten, unflatten
from vis_jax.systems.ifr import build_model

SWIN = "mask2former_swin_tiny"
TORCHVISION, DETECTRON2 = (
    f"maskrcnn_r50_fpn_{name}" for name in ("torchvision", "detectron2")
)


@functools.cache
def query_shapes():
    settings = mask2former.settings_of_case(load(SWIN))
    return mask2former.shapes_of(build_model(settings))


@functools.cache
def region_shapes():
    case = load(TORCHVISION)
    sizes = mask_rcnn.inputs_of_case(case)[1]
    return mask_rcnn.shapes_of(mask_rcnn.model_of_case(case, sizes))


@functools.cache
def graph_shapes():
    return rgnn_vis.shapes_of(rgnn_vis.model_of_case(load("rgnnvis_r50")))


iai_shapes = functools.cache(iai.shapes)


def named(case, part="model"):
    """The tensors of a part of a case by official name, one number each."""
    entries = load(case).manifest["parameters"][part]
    numbers = (np.float32(i) for i in range(len(entries)))
    return {
        x["name"]: np.broadcast_to(number, x["shape"])
        for x, number in zip(entries, numbers, strict=True)
    }


def hugging_face():
    weights, out = blank(SWIN), {}
    for entry in load(SWIN).manifest["hf_name_map"]:
        tensor = weights.get(entry["official"])
        if tensor is not None:
            whole = "slice" not in entry
            out[entry["hf"]] = tensor if whole else np.split(tensor, 3)[entry["slice"]]
    return out


def of_condinst():
    """A CondInst with identities: its outputs have a prefix, and it knows no frames."""
    outputs = ("conv_cls", "conv_reg", "conv_centerness")
    other = ("lstt.", "encoder_projector.", "backbone_projector.")
    return {
        name.replace(".conv_", ".fcos_") if name.split(".")[1] in outputs else name: x
        for name, x in blank("iai_condinst_r50").items()
        if not name.startswith(other)
    }


def of_osmn():
    shapes = flatten(vgg._shapes()).items()
    return {
        vgg._theirs(path): vgg_shaped(path, np.ones(x.shape, x.dtype))
        for path, x in shapes
        if "/osmn/" in path
    }


def vgg_shaped(path, x):
    """The shape that the authors give a kernel: all are convolutions there."""
    if path.endswith("fuse/kernel"):
        return x.reshape(1, 1, -1, 1)
    return x[None, None] if path.endswith("/kernel") and x.ndim == 2 else x


# All blocks of a stage of a ResNet but the first: the tables do not tell them apart.
LATER_BLOCK = re.compile(
    r"(layer\d|res\d|backbone\.layers\.\d)\.[1-9]\d*\.|backbone/res\d_[1-9]"
)

# The tensors of a file, and the shapes of a model that it fills.
FILES = {
    "condinst": lambda: (of_condinst(), iai_shapes()),
    "htc": lambda: (htc.generated(htc.official()), htc.shapes_of()),
    "huggingface": lambda: (hugging_face(), query_shapes()),
    "iai": lambda: (blank("iai_condinst_r50"), iai_shapes()),
    "mask2former": lambda: (blank(SWIN), query_shapes()),
    "mask_rcnn_detectron2": lambda: (blank(DETECTRON2), region_shapes()),
    "mask_rcnn_torchvision": lambda: (blank(TORCHVISION), region_shapes()),
    "mask_track_rcnn": lambda: (
        mask_track_rcnn.generated(mask_track_rcnn.official()),
        mask_track_rcnn.model_shapes(),
    ),
    "osmn": lambda: (of_osmn(), vgg._shapes()),
    "resnet": lambda: (named("backbone_resnet50", "torchvision"), region_shapes()),
    "rgnn_vis": lambda: (blank("rgnnvis_r50"), graph_shapes()),
    "swin": lambda: (named("backbone_swin_tiny"), query_shapes()),
    "vgg16": lambda: (vgg._torchvision(), vgg._shapes()),
    **videomt.FILES,
    "yolact": lambda: (blank("yolact_r50"), graph_shapes()),
}
# Rows of the background, which models here lack: zeros in the file.
BACKGROUND = {
    "mask_rcnn_torchvision": {
        "roi_heads.box_predictor.bbox_pred": 4,
        "roi_heads.mask_predictor.mask_fcn_logits": 1,
    },
    "mask_track_rcnn": {"bbox_head.fc_reg": 4, "mask_head.conv_logits": 1},
}


def test_every_kind_is_here():
    assert FILES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", FILES)
def test_a_file_comes_back_from_the_model_that_it_fills(kind):
    tensors, shapes = FILES[kind]()
    tensors = {n: x for n, x in tensors.items() if not LATER_BLOCK.search(n)}
    shapes = unflatten(
        {p: x for p, x in flatten(shapes).items() if not LATER_BLOCK.search(p)}
    )
    variables, report = convert_tensors(tensors, shapes, kind)
    # Values missing from the file differ.
    full = jax.tree.map(
        lambda x: x if isinstance(x, np.ndarray) else np.full(x.shape, 7, x.dtype),
        variables,
    )
    found = publish(full, kind)
    # Layers of other classes than the model has are new there, and written again.
    fresh = {name for name, reason in report.dropped.items() if " gives " in reason}
    assert found.tensors.keys() == report.used.keys() | fresh
    assert len(report.new) - len(fresh) == len(set(report.new) & set(found.left))
    for name in report.used:
        layer, tensor, expected = (
            name.rpartition(".")[0],
            found.tensors[name],
            tensors[name],
        )
        assert tensor.shape == expected.shape, name
        dropped = BACKGROUND.get(kind, {}).get(layer, 0)
        if dropped:
            assert not tensor[:dropped].any(), name
            tensor, expected = tensor[dropped:], expected[dropped:]
        np.testing.assert_array_equal(tensor, expected, err_msg=name)


def model_of(kind):
    """Small random variables that fill a kind of file."""
    tensors, shapes = FILES[kind]()
    return convert_tensors(tensors, shapes, kind)[0]


def test_two_trunks_that_differ_are_no_vgg():
    variables = jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype), flatten(model_of("vgg16"))
    )
    variables["params/osmn/seg/conv1/conv1_1/bias"] += 1
    with pytest.raises(ValueError) as caught:
        publish(unflatten(variables), "vgg16")
    assert str(caught.value) == (
        "'features.0.bias': expected one tensor for"
        " 'params/osmn/seg/conv1/conv1_1/bias'"
        " and 'params/osmn/modulator/trunk/conv1/conv1_1/bias', as in the file, got two"
        " that differ"
    )


def test_what_has_no_place_is_named():
    zeros = np.zeros(3, np.float32)
    model = {"params": {"decoder": {"frame_0": {"norm": {"scale": zeros}}}}}
    for kind in ("mask2former", "huggingface"):
        with pytest.raises(
            ValueError, match=f"layout {kind}: .* got IFR's, whose laye"
        ):
            publish(model, kind)
    model = {"params": {"backbone": {"stem": {"conv1": {"norm": {"scale": zeros}}}}}}
    expected = "1 misfits:\n  'params/backbone/stem/conv1/norm/scale': has no place"
    with pytest.raises(ValueError, match=expected):
        publish(model, "resnet")
    with pytest.raises(ValueError, match="kind: expected one of"):
        publish(model, "yolo")

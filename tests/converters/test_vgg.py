import functools

import jax
import numpy as np
import pytest

from vis_jax.converters.load import convert_tensors
from vis_jax.params import flatten
from vis_jax.systems.osmn.network import OSMN

# Torchvision's numbers of the convolutions among its layers.
NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
WIDTHS, HIDDEN, SIDE = (2, 3, 4, 5, 6), 7, 2


@functools.cache
def _shapes():
    """Variables of a system with OSMN and something else."""
    model = OSMN(widths=WIDTHS, hidden=HIDDEN)
    guide = 32 * SIDE
    inputs = [(1, guide, guide, 3), (1, 32, 32, 3), (1, 32, 32)]
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False, train_norm=False),
        jax.random.key(0),
        *(jax.ShapeDtypeStruct(x, np.float32) for x in inputs),
        valid=jax.ShapeDtypeStruct((1,), bool),
    )
    tree = {name: {"osmn": tree} for name, tree in shapes.items()}
    tree["params"]["detector"] = {"bias": jax.ShapeDtypeStruct((3,), np.float32)}
    return tree


def _torchvision():
    rng = np.random.default_rng(0)
    depths, tensors, before = (2, 2, 3, 3, 3), {}, 3
    widths = [w for w, d in zip(WIDTHS, depths, strict=True) for _ in range(d)]
    for number, width in zip(NUMBERS, widths, strict=True):
        tensors[f"features.{number}.weight"] = rng.normal(size=(width, before, 3, 3))
        tensors[f"features.{number}.bias"] = rng.normal(size=width)
        before = width
    for number, rows, columns in (
        (0, HIDDEN, before * SIDE**2),
        (3, HIDDEN, HIDDEN),
        (6, 1000, HIDDEN),
    ):
        tensors[f"classifier.{number}.weight"] = rng.normal(size=(rows, columns))
        tensors[f"classifier.{number}.bias"] = rng.normal(size=rows)
    return {name: x.astype(np.float32) for name, x in tensors.items()}


def test_both_trunks_start_from_torchvisions_vgg():
    tensors = _torchvision()
    variables, report = convert_tensors(tensors, _shapes(), "vgg16")
    assert set(report.dropped) == {"classifier.6.weight", "classifier.6.bias"}
    assert set(report.used) | set(report.dropped) == set(tensors)
    new = {path for path in report.new if not path.endswith("detector/bias")}
    assert {"/".join(path.split("/")[1:4]) for path in new} == {
        *(f"osmn/seg/{x}" for x in ("side2", "side3", "side4", "side5")),
        "osmn/seg/upscore_fuse",
        "osmn/modulator/fc8",
        *(f"osmn/modulator_sp/{x}{i}" for x in ("conv", "norm") for i in (3, 4, 5)),
    }
    osmn = variables["params"]["osmn"]
    for trunk in (osmn["seg"], osmn["modulator"]["trunk"]):
        kernel = trunk["conv4"]["conv4_2"]["kernel"]
        theirs = tensors["features.19.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(kernel, theirs)
    # The first linear layer reads features in the order channel, row, column.
    x = np.random.default_rng(1).normal(size=(WIDTHS[-1], SIDE, SIDE))
    ours = np.einsum("chw,hwco->o", x, osmn["modulator"]["fc6"]["kernel"])
    expected = tensors["classifier.0.weight"] @ x.ravel()
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_another_network_is_an_error():
    tensors = _torchvision()
    tensors["features.1.running_mean"] = np.zeros(2, np.float32)  # with batch norm
    with pytest.raises(ValueError, match=r"features.1.running_mean.*: no rule"):
        convert_tensors(tensors, _shapes(), "vgg16")


def _theirs(path):
    """The authors' name of a parameter, and the shape they give it."""
    collection, _, unit, *rest, leaf = path.split("/")
    layer = "/".join(x for x in rest if x != "trunk")
    if layer.startswith("norm"):
        names = {"scale": "gamma", "bias": "beta", "mean": "moving_mean"}
        name = names.get(leaf, "moving_variance")
        return f"osmn/{unit}/conv{layer[-1]}/BatchNorm/{name}"
    if layer.startswith("side"):
        number = layer[-1]
        layer = f"conv{number}_{2 if number == '2' else 3}_16"
    layer = layer.replace("_fuse", "-fuse")
    return f"osmn/{unit}/{layer}/{'weights' if leaf == 'kernel' else 'biases'}"


def test_the_authors_variables_map_one_to_one():
    flat, rng, tensors, values = flatten(_shapes()), np.random.default_rng(0), {}, {}
    for path, leaf in flat.items():
        if "/osmn/" not in path:
            continue
        values[path] = rng.normal(size=leaf.shape).astype(np.float32)
        theirs = values[path]
        if path.endswith(("fc7/kernel", "fc8/kernel")):
            theirs = theirs[None, None]
        if path.endswith("fuse/kernel"):
            theirs = theirs.reshape(1, 1, -1, 1)
        assert _theirs(path) not in tensors
        tensors[_theirs(path)] = theirs
    for k in (2, 3, 4, 5):
        tensors[f"osmn/seg/score-multi{k}-up/weights"] = np.zeros((4, 4, 16, 16))
    tensors["osmn/seg/conv1/conv1_1/weights/Adam_1"] = np.zeros(3)
    variables, report = convert_tensors(tensors, _shapes(), "osmn")
    assert report.new == ("params/detector/bias",)
    assert len(report.dropped) == 5
    converted = flatten(variables)
    for path, value in values.items():
        np.testing.assert_array_equal(converted[path], value, err_msg=path)

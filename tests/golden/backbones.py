"""Runs our backbones on the stored cases of ResNet-50 and Swin-T."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from tests.golden.cases import Case, nchw, nhwc
from tests.golden.norms import BatchStatistics
from vis_jax.backbones.resnet import ResNet
from vis_jax.backbones.swin import Swin
from vis_jax.converters.load import convert_tensors

_MOMENTUM = 0.1  # of torchvision's running statistics


@functools.cache
def shapes_of(model: nn.Module) -> dict:
    """Returns the shapes of a backbone's variables."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return {name: {"backbone": tree} for name, tree in shapes.items()}


def converted(model: nn.Module, weights: dict, kind: str) -> dict:
    """Converts the weights of a backbone with the public converter."""
    shapes = shapes_of(model)
    variables, report = convert_tensors(weights, shapes, kind)
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return {name: tree["backbone"] for name, tree in variables.items()}


def _part(model: nn.Module, name: str):
    """Returns (variables, images) -> features, and the output of one module."""

    def run(variables, images):
        features, state = model.apply(
            variables,
            images,
            capture_intermediates=lambda module, _: module.name == name,
        )
        return features, state["intermediates"][name]["__call__"][0]

    return run


def compare_resnet(case: Case) -> dict[str, np.ndarray]:
    """Computes the arrays of ResNet-50 with names of torchvision and of detectron2.

    Our models have neither a classifier nor batch statistics: both are added here, as
    in the stored runs.
    """
    images = nhwc(case.arrays["image"])
    model = ResNet("50")
    run = compiled(_part(model, "stem"))
    variables = converted(model, case.weights("detectron2"), "resnet")
    features, stem = run(variables, images)
    results = {"detectron2/stem": nchw(stem)}
    results |= {f"detectron2/{name}": nchw(x) for name, x in features.items()}

    weights = case.weights("torchvision")
    variables = converted(model, weights, "resnet")
    results |= _torchvision("eval", *run(variables, images), weights)
    interceptor = BatchStatistics()

    def train(variables, images):
        with nn.intercept_methods(interceptor):
            out = _part(model, "stem")(variables, images)
        return out, {"/".join(path): x for path, x in interceptor.moments.items()}

    out, moments = compiled(train)(variables, images)
    results |= _torchvision("train", *out, weights)
    return results | _running(case, weights, moments, _inputs(model, images))


def _torchvision(mode: str, features: dict, stem, weights: dict) -> dict:
    """Returns the arrays of one run with torchvision's names."""
    results = {f"torchvision/{mode}/stem": nchw(stem)}
    for name, x in features.items():
        results[f"torchvision/{mode}/layer{int(name[-1]) - 1}"] = nchw(x)
    pooled = features["res5"].mean(axis=(1, 2))
    logits = pooled @ weights["fc.weight"].T + weights["fc.bias"]
    return results | {f"torchvision/{mode}/logits": logits}


def _inputs(model: ResNet, images: np.ndarray) -> dict[str, int]:
    """Returns the input of every norm, by path."""
    counts: dict[str, int] = {}

    def count(call, args, kwargs, context):
        if context.module.name == "norm":
            counts["/".join(context.module.path)] = args[0][..., 0].size
        return call(*args, **kwargs)

    with nn.intercept_methods(count):
        jax.eval_shape(model.init, jax.random.key(0), images)
    return counts


def _running(case: Case, weights: dict, moments: dict, counts: dict) -> dict:
    """Returns running statistics after the batch: 0.9 old + 0.1 new."""
    prefix, results = "torchvision/after_train/", {}
    for name in case.arrays:
        if not name.startswith(prefix):
            continue
        source, _, kind = name.removeprefix(prefix).rpartition(".")
        path = _path(source)
        mean, var = moments[path]
        new = var * counts[path] / (counts[path] - 1) if kind == "running_var" else mean
        old = weights[f"{source}.{kind}"]
        results[name] = (1 - _MOMENTUM) * old + _MOMENTUM * new
    return results


def _path(name: str) -> str:
    """Maps a norm of torchvision to ours: 'layer1.0.bn2' to 'res2_0/conv2/norm'."""
    if name == "bn1":
        return "stem/conv1/norm"
    layer, block, kind = name.split(".")[:3]
    conv = "shortcut" if kind == "downsample" else f"conv{kind[-1]}"
    return f"res{int(layer[-1]) + 1}_{block}/{conv}/norm"


def compare_swin(case: Case) -> dict[str, np.ndarray]:
    """Computes the arrays of Swin-T on images of several sizes."""
    settings = case.manifest["settings"]
    model = Swin("tiny", window=settings["window_size"], drop_path=0.0)
    count = sum(name.endswith("/image") for name in case.arrays)
    variables, results = converted(model, case.weights(), "swin"), {}
    for i in range(count):
        images = nhwc(case.arrays[f"{i}/image"])
        features, embedded = compiled(_part(model, "patch_embed"))(variables, images)
        results[f"{i}/patch_embed"] = nchw(embedded)
        results |= {f"{i}/{name}": nchw(x) for name, x in features.items()}
    return results

"""Our layers and ways of resampling on the stored case of elementary operators."""

import functools
import re

import jax
import numpy as np

from tests.compiled import compiled
from tests.golden.cases import Case, Results, instances, nchw, nhwc
from vis_jax.backbones.resnet import _max_pool
from vis_jax.converters.transforms import kernel, same
from vis_jax.layers.attention import MultiHeadAttention
from vis_jax.layers.norm import GroupNorm, LayerNorm
from vis_jax.ops.bilinear import (
    resize,
    resize_corners,
    resize_nearest,
    sample_channels,
    sample_pixels,
)


def resampling_results(case: Case) -> Results:
    """Maps that are read at points, and resized ones."""
    results = _grid_sample(case)
    for name in instances(case, "resize", "input"):
        for ending, function in (
            ("bilinear_align_corners_False", resize),
            ("bilinear_align_corners_True", resize_corners),
            ("nearest", resize_nearest),
        ):
            size = case.arrays[f"{name}/{ending}"].shape[2:]
            run = compiled(function, static_argnums=1)
            maps = nhwc(case.arrays[f"{name}/input"])
            results[f"{name}/{ending}"] = nchw(run(maps, size))
    return results


def _grid_sample(case: Case) -> Results:
    maps, grid = (case.arrays[f"grid_sample/{x}"] for x in ("input", "grid"))
    maps, points = nhwc(maps), ((grid + 1) / 2).reshape(len(grid), -1, 2)
    last = np.array(maps.shape[2:0:-1], np.float32) - 1  # x, y of the last pixel
    # In pixels. Ours reads bilinearly, and 0 outside: other kinds read at other places.
    centres, corners = points * (last + 1) - np.float32(0.5), points * last
    at = {
        "bilinear_zeros_align_corners_True": corners,
        "bilinear_border_align_corners_False": centres.clip(0, last),
        "bilinear_border_align_corners_True": corners.clip(0, last),
        "nearest_zeros_align_corners_False": centres.round(),
    }
    by_pixel = compiled(jax.vmap(sample_pixels))
    read = {kind: by_pixel(maps, xy[..., 1], xy[..., 0]) for kind, xy in at.items()}
    plain = compiled(jax.vmap(sample_channels))(maps, points)
    read["bilinear_zeros_align_corners_False"] = plain
    shape = (*grid.shape[:3], -1)
    return {f"grid_sample/{x}": nchw(read[x].reshape(shape)) for x in read}


def layer_results(case: Case) -> Results:
    """Normalisation, activation, pooling."""
    results = {}
    norm = compiled(GroupNorm().apply)
    for name in instances(case, "group_norm", "output"):
        note = case.manifest["arrays"][f"{name}/output"].get("note", "")
        count = re.search(r"(\d+) groups", note)
        groups = int(count[1]) if count else 32
        # A layer has as many groups as channels up to 32: channels of a group are laid
        # side by side, as pixels of one channel.
        x = nhwc(case.arrays[f"{name}/input"])
        parts = x.reshape(*x.shape[:3], groups, -1).swapaxes(-1, -2)
        ones = np.ones(groups, np.float32)
        y = norm({"params": dict(scale=ones, bias=0 * ones)}, parts)
        scale, bias = (case.arrays[f"{name}/{x}"] for x in ("weight", "bias"))
        results[f"{name}/output"] = nchw(
            y.swapaxes(-1, -2).reshape(x.shape) * scale + bias
        )
    x = case.arrays["layer_norm/input"]
    ones = np.ones(x.shape[-1], np.float32)
    variables = {"params": dict(scale=ones, bias=0 * ones)}
    results["layer_norm/output"] = compiled(LayerNorm().apply)(variables, x)
    # Exact as in the blocks of Swin; by tanh no model has it.
    for kind in ("exact", "tanh"):
        gelu = functools.partial(jax.nn.gelu, approximate=kind == "tanh")
        results[f"gelu/{kind}"] = compiled(gelu)(case.arrays["gelu/input"])
    return results | {"max_pool/k3s2p1": _pooled(case)}


def _pooled(case: Case) -> np.ndarray:
    """As in the stem of ResNet, which has maps with nothing below 0."""
    x = nhwc(case.arrays["max_pool/input"])
    least = x.min()
    return nchw(compiled(_max_pool)(x - least) + least)


def attention_results(case: Case) -> Results:
    """Attention with a mask for each head, where our layer has one for all.

    Every head is run alone: the part of the others in the output projection is 0.
    """
    name = "multihead_attention"
    query, key, value = (
        case.arrays[f"{name}/{x}"].swapaxes(0, 1) for x in ("query", "key", "value")
    )
    blocked = case.arrays[f"{name}/attn_mask"]
    heads = len(blocked) // len(query)
    attend = ~blocked.reshape(len(query), heads, *blocked.shape[1:]).swapaxes(0, 1)
    module = MultiHeadAttention(query.shape[-1], heads)
    params = _attention_params(case, module, (query, key, value))
    alone = np.eye(heads, dtype=np.float32).reshape(heads, heads, 1, 1)

    def of_head(query, key, value, mask, alone):
        out = {
            "kernel": params["out"]["kernel"] * alone,
            "bias": params["out"]["bias"] / np.float32(heads),
        }
        variables = {"params": params | {"out": out}}
        return module.apply(variables, query, key, value, mask)

    every = jax.vmap(of_head, (None, None, None, 0, 0))
    out = compiled(every)(query, key, value, attend, alone)
    weights = _attention_weights(module, params, (query, key), attend)
    return {
        f"{name}/output": out.sum(axis=0).swapaxes(0, 1),
        f"{name}/weights": weights.mean(axis=0),
    }


def _attention_params(case: Case, module: MultiHeadAttention, inputs) -> dict:
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    weights, params = case.weights("multihead_attention"), {}
    parts = [np.split(weights[f"in_proj_{x}"], 3) for x in ("weight", "bias")]
    names = dict(zip(("query", "key", "value"), zip(*parts, strict=True), strict=True))
    names["out"] = (weights["out_proj.weight"], weights["out_proj.bias"])
    for name, (matrix, bias) in names.items():
        entry = shapes["params"][name]
        params[name] = dict(
            kernel=kernel(matrix, entry["kernel"].shape),
            bias=same(bias, entry["bias"].shape),
        )
    return params


def _attention_weights(
    module: MultiHeadAttention, params: dict, inputs, attend: np.ndarray
) -> np.ndarray:
    """Weights of every head: [heads, N, Q, K], from masks of the same axes.

    Read as the outputs for values that are 1 at one key and 0 at the others, with
    projections that pass the first channel of head h to output h.
    """
    query, key = inputs
    count, heads = key.shape[1], np.arange(module.heads)
    through = {
        part: {x: np.zeros_like(y) for x, y in params[part].items()}
        for part in ("value", "out")
    }
    through["value"]["kernel"][0, :, 0] = 1.0
    through["out"]["kernel"][heads, 0, heads] = 1.0
    values = np.zeros((count, *key.shape), np.float32)  # first axis: which key is 1
    values[np.arange(count), :, np.arange(count), 0] = 1.0

    def one(query, key, value, mask):
        return module.apply({"params": params | through}, query, key, value, mask)

    of_keys = jax.vmap(one, (None, None, 0, None))
    of_heads = jax.vmap(of_keys, (None, None, None, 0))
    outputs = compiled(of_heads)(query, key, values, attend)  # [heads, K, N, Q, C]
    return np.moveaxis(outputs[heads, ..., heads], 1, -1)

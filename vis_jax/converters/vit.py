"""Plain vision transformer weights: DINOv2 and DINOv3, also within EoMT and VidEoMT.

A model has one of two forms, shown by its variables: DINOv2's with a position table, or
DINOv3's. Files of either use the names of the authors, of timm or of Hugging Face.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from vis_jax.converters.rules import (
    MisfitError,
    NameRule,
    Rename,
    Renamed,
    Shape,
    Transform,
)
from vis_jax.converters.swin import linear_rule, norm_rule
from vis_jax.converters.transforms import kernel, rows, same

TABLE = "params/backbone/positions"
_PARTS = ("query", "key", "value")
# Biases of query, key and value fused in one layer, by both names of DINOv3 files.
_FUSED_BIAS = re.compile(
    r"(?:.*\.)?blocks\.\d+\.(?:attention\.qkv_proj|attn\.qkv)\.bias"
)


def _token(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    return tensor.reshape(tensor.shape[1:]) if tensor.ndim == 3 else tensor


def _token_back(array: np.ndarray, outputs: int) -> np.ndarray:
    del outputs
    return array[None]


# [1, n, D] to [n, D].
token = Transform(_token, _token_back)


def _table(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    """Resizes a square table if necessary, as the model does for other grids."""
    flat = tensor.reshape(-1, tensor.shape[-1])
    side = math.isqrt(len(flat))
    if side * side != len(flat) or len(shape) != 3:
        return tensor
    square = flat.reshape(side, side, -1)
    if shape[:2] == square.shape[:2]:
        return square
    by_rows, by_columns = (antialiased_cubic(side, size) for size in shape[:2])
    square = np.einsum("yi,xj,ijc->yxc", by_rows, by_columns, square.astype(np.float64))
    return square.astype(tensor.dtype)


def _table_back(array: np.ndarray, outputs: int) -> np.ndarray:
    del outputs
    return array.reshape(-1, array.shape[-1])


# [side^2, D] or [1, side^2, D] to [side, side, D].
flat_table = Transform(_table, _table_back)
table = Transform(_table, lambda array, outputs: _table_back(array, outputs)[None])


def _patches(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    """Maps [D, 3, p, p] to [q, q, 3, D], resizing the patches if necessary.

    With B the resize of a patch from p to q pixels, new weights pinv(B^T) w give a
    resized patch the old result of the original one (Beyer et al., "FlexiViT", CVPR
    2023).
    """
    if tensor.ndim != 4 or len(shape) != 4:
        return tensor
    weights = tensor.transpose(2, 3, 1, 0)
    old, new = weights.shape[0], shape[0]
    if old == new or weights.shape[1] != old or shape[1] != new:
        return weights
    axis = np.linalg.pinv(antialiased_cubic(old, new).T)  # B is a Kronecker product
    wide = np.einsum("yi,xj,ijcd->yxcd", axis, axis, weights.astype(np.float64))
    return wide.astype(tensor.dtype)


def _patches_back(array: np.ndarray, outputs: int) -> np.ndarray:
    del outputs
    return array.transpose(3, 2, 0, 1)


patches = Transform(_patches, _patches_back)


def antialiased_cubic(old: int, new: int) -> np.ndarray:
    """Returns the [new, old] matrix of an antialiased cubic resize, a = -0.5."""
    step = old / new
    wide = max(step, 1.0)
    centres = (np.arange(new) + 0.5) * step - 0.5
    away = np.abs(centres[:, None] - np.arange(old)) / wide
    near = 1.5 * away**3 - 2.5 * away**2 + 1.0
    far = -0.5 * away**3 + 2.5 * away**2 - 4.0 * away + 2.0
    weights = np.where(away <= 1.0, near, np.where(away < 2.0, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def has_table(shapes: Mapping[str, tuple]) -> bool:
    """Returns whether a model has DINOv2's form, judging by its variables' shapes."""
    return TABLE in shapes


def backbone_rules(
    source: str, shapes: Mapping[str, tuple], *, flat: bool = False
) -> list[NameRule]:
    """Returns rules for the names of timm and of EoMT's authors.

    Args:
      source: prefix of the names, such as 'network.encoder.backbone.'; "" for none.
      shapes: shapes of the model's variables, which show its form.
      flat: the published position table has two axes, as Hugging Face's, not three.
    """
    source = source.replace(".", r"\.")
    block, path = rf"{source}blocks\.(\d+)\.", r"backbone/blocks_\1"
    shared = [
        *norm_rule(rf"{block}norm([12])", rf"{path}/norm\2"),
        *norm_rule(rf"{source}norm", "backbone/norm"),
        NameRule(rf"{source}mask_token", dropped="of the pre-training"),
    ]
    if has_table(shapes):
        return [*_tables(source, flat), *_dinov2(source, block, path), *shared]
    return [*_dinov3(source, block, path), *shared]


def _scale(source: str, path: str) -> NameRule:
    return NameRule(source, ((f"params/{path}/scale\\2", same),))


def _fused(block: str, path: str, *, key_bias: bool) -> list[NameRule]:
    """Returns rules for query, key and value fused in one layer."""
    parts = [(i, x) for i, x in enumerate(_PARTS) if key_bias or x != "key"]
    kernels = tuple(
        (f"params/{path}/attn/{x}/kernel", rows(i, 3, kernel))
        for i, x in enumerate(_PARTS)
    )
    biases = tuple((f"params/{path}/attn/{x}/bias", rows(i, 3, same)) for i, x in parts)
    return [NameRule(rf"{block}weight", kernels), NameRule(rf"{block}bias", biases)]


def _tables(source: str, flat: bool) -> list[NameRule]:
    """Returns rules for both forms of the table, published form first."""
    rules = [
        NameRule(rf"{source}pos_embed", ((TABLE, table),)),
        NameRule(rf"{source}pos_table", ((TABLE, flat_table),)),
    ]
    return rules[::-1] if flat else rules


def _dinov2(source: str, block: str, path: str) -> list[NameRule]:
    patch = "params/backbone/patch_embed"
    return [
        NameRule(rf"{source}cls_token", (("params/backbone/cls_token", token),)),
        NameRule(rf"{source}reg_token", (("params/backbone/reg_tokens", token),)),
        NameRule(
            rf"{source}patch_embed\.proj\.weight", ((f"{patch}/kernel", patches),)
        ),
        NameRule(rf"{source}patch_embed\.proj\.bias", ((f"{patch}/bias", same),)),
        *_fused(rf"{block}attn\.qkv\.", path, key_bias=True),
        *linear_rule(rf"{block}attn\.proj", f"{path}/attn/out"),
        _scale(rf"{block}ls([12])\.gamma", path),
        *linear_rule(rf"{block}mlp\.(fc[12])", rf"{path}/mlp/\2"),
    ]


def _dinov3(source: str, block: str, path: str) -> list[NameRule]:
    embed, patch = rf"{source}patch_embed\.", "params/backbone/patch_embed"
    attention = rf"{block}attention\."
    return [
        NameRule(rf"{embed}cls_token", (("params/backbone/cls_token", token),)),
        NameRule(rf"{embed}register_tokens", (("params/backbone/reg_tokens", token),)),
        NameRule(rf"{embed}mask_token", dropped="of the pre-training"),
        NameRule(rf"{embed}patch_embeddings\.weight", ((f"{patch}/kernel", patches),)),
        NameRule(rf"{embed}patch_embeddings\.bias", ((f"{patch}/bias", same),)),
        *dinov3_block_rules(block, path),
        # Some files fuse all three in one layer.
        *_fused(rf"{attention}qkv_proj\.", path, key_bias=False),
        # Meta's own names.
        NameRule(rf"{source}cls_token", (("params/backbone/cls_token", token),)),
        NameRule(rf"{source}storage_tokens", (("params/backbone/reg_tokens", token),)),
        NameRule(rf"{embed}proj\.weight", ((f"{patch}/kernel", patches),)),
        NameRule(rf"{embed}proj\.bias", ((f"{patch}/bias", same),)),
        *_fused(rf"{block}attn\.qkv\.", path, key_bias=False),
        NameRule(rf"{block}attn\.qkv\.bias_mask", dropped="keys have no bias here"),
        *linear_rule(rf"{block}attn\.proj", f"{path}/attn/out"),
        _scale(rf"{block}ls([12])\.gamma", path),
        *linear_rule(rf"{block}mlp\.(fc[12])", rf"{path}/mlp/\2"),
        NameRule(rf"{source}rope_embed\.periods", dropped="computed"),
    ]


def dinov3_block_rules(block: str, path: str) -> list[NameRule]:
    """Returns rules for a DINOv3 block without its norms.

    Args:
      block: regex of the prefix, with one group.
      path: path of the block, with \\1 for the group.
    """
    return [
        *[
            rule
            for name, ours in zip("qkvo", (*_PARTS, "out"), strict=True)
            for rule in linear_rule(
                rf"{block}attention\.{name}_proj", f"{path}/attn/{ours}"
            )
        ],
        _scale(rf"{block}layer_scale([12])\.lambda1", path),
        *linear_rule(rf"{block}mlp\.up_proj", f"{path}/mlp/fc1"),
        *linear_rule(rf"{block}mlp\.down_proj", f"{path}/mlp/fc2"),
    ]


def huggingface_names(
    source: str, target: str, shapes: Mapping[str, tuple]
) -> list[Rename]:
    """Maps Hugging Face's names of EoMT and VidEoMT to the authors'.

    Args:
      source: regex of the prefix of blocks, such as 'layers'.
      target: prefix of the authors' names.
      shapes: shapes of the model's variables.
    """
    block, ours = rf"{source}\.(\d+)\.", rf"{target}blocks.\1."
    of_form = _dinov2_names if has_table(shapes) else _dinov3_names
    return [
        *of_form(block, ours, target),
        Rename(rf"{block}(norm[12]\..*)", rf"{ours}\2"),
        Rename(r"layernorm\.(weight|bias)", rf"{target}norm.\1"),
        Rename(r"embeddings\.mask_token", f"{target}mask_token"),
    ]


def _dinov3_names(block: str, ours: str, target: str) -> list[Rename]:
    return [
        Rename(
            r"embeddings\.(cls_token|register_tokens|patch_embeddings\..*)",
            rf"{target}patch_embed.\1",
        ),
        Rename(rf"{block}((?:attention|layer_scale[12]|mlp)\..*)", rf"{ours}\2"),
    ]


def _dinov2_names(block: str, ours: str, target: str) -> list[Rename]:
    """Returns renames for a DINOv2 block, Hugging Face's own names second."""
    attention = rf"{block}attention\."
    return [
        Rename(r"embeddings\.cls_token", f"{target}cls_token"),
        Rename(r"embeddings\.register_tokens", f"{target}reg_token"),
        Rename(r"embeddings\.position_embeddings\.weight", f"{target}pos_table"),
        Rename(r"embeddings\.position_embeddings", f"{target}pos_embed", alias=True),
        Rename(
            r"embeddings\.patch_embeddings\.projection\.(\w+)",
            rf"{target}patch_embed.proj.\1",
        ),
        *[
            Rename(
                rf"{attention}(?:{x[0]}_proj|attention\.{x})\.(\w+)",
                rf"{ours}attn.qkv.\2",
                part,
                3,
            )
            for part, x in enumerate(_PARTS)
        ],
        Rename(
            rf"{attention}(?:out_proj|output\.dense)\.(\w+)", rf"{ours}attn.proj.\2"
        ),
        Rename(rf"{block}layer_scale([12])\.lambda1", rf"{ours}ls\2.gamma"),
        Rename(rf"{block}(mlp\.fc[12]\..*)", rf"{ours}\2"),
    ]


def names_for(shapes: Mapping[str, tuple]) -> list[Rename]:
    """Maps Hugging Face's names of DINOv2 and DINOv3 to those without a prefix."""
    names = huggingface_names(r"(?:encoder\.|model\.)?layer", "", shapes)
    return [name._replace(alias=True) for name in names]


def fold_class_position(renamed: Renamed) -> tuple[Renamed, tuple[str, ...]]:
    """Adds the position table's first row, that of the class token, to the token.

    Meta's DINOv2 files have it; a table of patches alone has a square number of rows.

    Returns:
      The tensors, and report lines.
    """
    tensors = dict(renamed.tensors)
    for name in ("pos_embed", "pos_table"):
        if name not in tensors or "cls_token" not in tensors:
            continue
        found = tensors[name]
        count = found.shape[-2] - 1
        if count > 0 and math.isqrt(count) ** 2 == count:
            tensors["cls_token"] = tensors["cls_token"] + found[..., :1, :]
            tensors[name] = found[..., 1:, :]
            note = "the position of the class token is added to the token"
            return Renamed(tensors, renamed.origins), (note,)
    return renamed, ()


def check_key_bias(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple]
) -> None:
    """Checks that no key of a DINOv3 file has a bias, as the model's have none.

    Where query, key and value share a layer, the key's third of the bias must be 0, or
    masked by Meta's `bias_mask`.

    Args:
      tensors: tensors of the file, by the authors' names.
      shapes: shapes of the model's variables.

    Raises:
      MisfitError: names the tensor.
    """
    if has_table(shapes):
        return
    for name, bias in tensors.items():
        if not _FUSED_BIAS.fullmatch(name):
            continue
        mask = tensors.get(f"{name}_mask", np.ones_like(bias))
        third = len(bias) // 3
        most = np.abs((bias * mask)[third : 2 * third]).max(initial=0.0)
        if most != 0:
            raise MisfitError(
                f"source {name!r}: expected 0 in the second third, as keys have no bias"
                f" here, got up to {most:.3g}"
            )

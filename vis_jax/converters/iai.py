"""Weights of IAI on CondInst, as released by its authors.

The image model has the names of `converters.condinst`; this module covers the parts
that relate frames.
"""

import numpy as np

from vis_jax.converters import condinst
from vis_jax.converters.rules import NameRule, Shape, Transform
from vis_jax.converters.swin import linear_rule, norm_rule
from vis_jax.converters.transforms import kernel, same

# Output names lack the prefix of a COCO CondInst.
NAMES = [rename._replace(alias="fcos_" in rename.source) for rename in condinst.NAMES]

# Parts that a plain CondInst lacks.
ASSOCIATION = r"params/(hab/.*|detector/head/id_(tower|logits)/.*)"

# Parts that a plain Mask R-CNN lacks.
REGION_ASSOCIATION = r"params/(hab/.*|box_head/id_logits/.*)"

_LAYER, _BLOCK = r"lstt\.LSTT\.layers\.0", "hab/block"

_LINEAR = {
    r"(encoder|backbone)_projector": r"hab/\1_projector",
    **{
        rf"{_LAYER}\.self_attn\.{old}": f"{_BLOCK}/self_attention/{new}"
        for old, new in (
            ("linear_Q", "query"),
            ("linear_K", "key"),
            ("linear_V", "value"),
            ("projection", "out"),
        )
    },
    rf"{_LAYER}\.linear_Q": f"{_BLOCK}/key",
    rf"{_LAYER}\.linear_V": f"{_BLOCK}/value",
    rf"{_LAYER}\.long_term_attn\.projection": f"{_BLOCK}/global_out",
    rf"{_LAYER}\.short_term_attn\.fc": f"{_BLOCK}/local_attention/out",
    rf"{_LAYER}\.(linear[12])": rf"{_BLOCK}/ffn/\1",
}

_NORMS = {
    rf"{_LAYER}\.norm1": f"{_BLOCK}/memory_norm",
    rf"{_LAYER}\.norm2": f"{_BLOCK}/self_norm",
    rf"{_LAYER}\.norm3": f"{_BLOCK}/ffn_norm",
    rf"{_LAYER}\.activation\.gn": f"{_BLOCK}/ffn/norm",
    r"lstt\.LSTT\.decoder_norms\.0": f"{_BLOCK}/out_norm",
}


def _squeezed(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    """Removes axes of length 1; the first axis may be split into heads."""
    return same(tensor.squeeze(), shape)


def _channels_back(array: np.ndarray, outputs: int) -> np.ndarray:
    """Reshapes [C] to [1, C, 1, 1]."""
    del outputs
    return array.reshape(1, -1, 1, 1)


def _value_bias_back(array: np.ndarray, outputs: int) -> np.ndarray:
    """Reshapes [heads, C, places] to [1, heads, C, places, 1]."""
    del outputs
    return array[None, ..., None]


def _relative_kernel_back(array: np.ndarray, outputs: int) -> np.ndarray:
    """Reshapes [heads, places, C] to [heads * places, C, 1, 1]."""
    del outputs
    return array.reshape(-1, array.shape[-1], 1, 1)


def _relative_bias_back(array: np.ndarray, outputs: int) -> np.ndarray:
    """Reshapes [heads, places] to [heads * places]."""
    del outputs
    return array.reshape(-1)


_NEAR, _OUR_NEAR = rf"{_LAYER}\.short_term_attn", f"{_BLOCK}/local_attention"

_TABLES = [
    (
        rf"{_LAYER}\.activation\.GCT\.(alpha|beta|gamma)",
        rf"{_BLOCK}/ffn/gate/\1",
        _channels_back,
    ),
    (rf"{_NEAR}\.V_bias", f"{_OUR_NEAR}/value_bias", _value_bias_back),
    (
        rf"{_NEAR}\.relative_emb\.weight",
        f"{_OUR_NEAR}/relative_kernel",
        _relative_kernel_back,
    ),
    (
        rf"{_NEAR}\.relative_emb\.bias",
        f"{_OUR_NEAR}/relative_bias",
        _relative_bias_back,
    ),
]

RULES = [
    *condinst.RULES,
    *[rule for old, new in _LINEAR.items() for rule in linear_rule(old, new)],
    *[rule for old, new in _NORMS.items() for rule in norm_rule(old, new)],
    *[
        NameRule(old, ((f"params/{new}", Transform(_squeezed, back)),))
        for old, new, back in _TABLES
    ],
    NameRule(
        rf"{_LAYER}\.activation\.conv\.weight",
        ((f"params/{_BLOCK}/ffn/conv/kernel", kernel),),
    ),
    # The shape depends on the number of identities.
    NameRule(
        r"lstt\.patch_wise_id_bank\.weight",
        (("params/hab/id_bank/kernel", kernel),),
        fresh=True,
    ),
    NameRule(r"lstt\.patch_wise_id_bank\.bias", (("params/hab/id_bank/bias", same),)),
]

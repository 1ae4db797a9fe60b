"""EoMT and VidEoMT weights: the authors' and Hugging Face's names."""

from collections.abc import Mapping

import numpy as np

from vis_jax.converters import vit
from vis_jax.converters.rules import NameRule, Rename, Shape, Transform
from vis_jax.converters.swin import linear_rule, norm_rule
from vis_jax.converters.transforms import kernel, same

# Image models have no propagation.
PROPAGATION = r"params/propagation/.*"
# PMT's encoder is frozen: a DINO file has the same weights.
ENCODER = r"params/backbone/.*"

_PREFIX = {
    "eomt": "network.",
    "videomt": "backbone.",
    "videomt_huggingface": "backbone.",
    "pmt": "backbone.",
}
KINDS = tuple(_PREFIX)

# Minimum mean scale of the final norm for complete weights; near 0 for differences.
_LEAST_SCALE = 0.25


def _enlarge(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    return tensor.transpose(0, 2, 3, 1) if tensor.ndim == 4 else tensor


def _enlarge_back(array: np.ndarray, outputs: int) -> np.ndarray:
    del outputs
    return array.transpose(0, 3, 1, 2)


# A transposed convolution, [in, out, 2, 2] to [in, 2, 2, out].
_enlarged = Transform(_enlarge, _enlarge_back)


def _smooth_back(array: np.ndarray, outputs: int) -> np.ndarray:
    del outputs
    return array.transpose(3, 2, 0, 1)


_smooth = kernel._replace(back=_smooth_back)


def head_rules(source: str) -> list[NameRule]:
    """Returns rules for queries, heads and propagation.

    Args:
      source: prefix of the names.
    """
    source = source.replace(".", r"\.")
    up, path = rf"{source}upscale\.(\d)\.", r"params/heads/upscale_\1"
    classes = "params/heads/class_head/linear"
    carry = "params/propagation"
    return [
        NameRule(rf"{source}q\.weight", (("params/query", same),)),
        # Other data sets have other classes.
        NameRule(
            rf"{source}class_head\.weight", ((f"{classes}/kernel", kernel),), fresh=True
        ),
        NameRule(
            rf"{source}class_head\.bias", ((f"{classes}/bias", same),), fresh=True
        ),
        *[
            rule
            for place in range(3)
            for rule in linear_rule(
                rf"{source}mask_head\.{2 * place}", f"heads/mask_head/layers_{place}"
            )
        ],
        NameRule(rf"{up}conv1\.weight", ((f"{path}/enlarge_kernel", _enlarged),)),
        NameRule(rf"{up}conv1\.bias", ((f"{path}/enlarge_bias", same),)),
        NameRule(rf"{up}conv2\.weight", ((f"{path}/smooth_kernel", _smooth),)),
        *norm_rule(rf"{up}norm", r"heads/upscale_\1/norm"),
        *linear_rule(rf"{source}query_updater", "propagation/updater"),
        *[
            rule
            for theirs, ours in (("ih", "input"), ("hh", "hidden"))
            for rule in (
                NameRule(
                    rf"{source}query_gru\.weight_{theirs}",
                    ((f"{carry}/gru/{ours}/kernel", kernel),),
                ),
                NameRule(
                    rf"{source}query_gru\.bias_{theirs}",
                    ((f"{carry}/gru/{ours}/bias", same),),
                ),
            )
        ],
        NameRule(rf"{source}attn_mask_probs", dropped="a setting of the training"),
        NameRule(r"(?:.*\.)?criterion\..*", dropped="of the loss"),
        NameRule(rf"{source}encoder\.pixel_(?:mean|std)", dropped="of the pixels"),
    ]


def rules_for(kind: str, shapes: Mapping[str, tuple]) -> list[NameRule]:
    """Returns the rules of a kind for one model.

    Args:
      kind: one of KINDS.
      shapes: shapes of the model's variables, by path.
    """
    prefix = _PREFIX[kind]
    flat = kind == "videomt_huggingface"
    backbone = vit.backbone_rules(f"{prefix}encoder.backbone.", shapes, flat=flat)
    if kind == "pmt":
        return [*backbone, *decoder_rules(prefix), *head_rules(f"{prefix}decoder.")]
    return [*backbone, *head_rules(prefix)]


def decoder_rules(source: str) -> list[NameRule]:
    """Returns rules for the blocks of PMT and LVMT, without their heads.

    Args:
      source: prefix of the names.
    """
    source = source.replace(".", r"\.")
    norm, level = rf"{source}bn\.(\d)\.", r"decoder/laterals_\1"
    lateral = rf"{source}decoder\.lateral_projections\.(\d)\."
    block, path = rf"{source}decoder\.blocks\.(\d+)\.", r"decoder/blocks_\1"
    statistics = [
        NameRule(
            rf"{norm}running_{name}", ((f"batch_stats/{level}/norm/{name}", same),)
        )
        for name in ("mean", "var")
    ]
    return [
        *norm_rule(norm.removesuffix(r"\."), f"{level}/norm"),
        *statistics,
        NameRule(rf"{norm}num_batches_tracked", dropped="a counter"),
        *linear_rule(rf"{lateral}0", f"{level}/fc1"),
        *linear_rule(rf"{lateral}2", f"{level}/fc2"),
        NameRule(
            rf"{source}decoder\.scalers\.(\d)", ((f"params/{level}/scale", same),)
        ),
        *norm_rule(rf"{block}norm([12])", rf"{path}/norm\2"),
        *vit.dinov3_block_rules(block, path),
        *norm_rule(rf"{source}decoder\.decoder_norm", "decoder/norm"),
        NameRule(rf"{source}encoder\.pixel_(?:mean|std)", dropped="of the pixels"),
    ]


def names_for(kind: str, shapes: Mapping[str, tuple]) -> list[Rename]:
    """Returns the renames of a kind for one model; arguments as in `rules_for`."""
    if kind != "videomt_huggingface":
        return []
    prefix = _PREFIX[kind]
    block = r"upscale_block\.block\.(\d)\."
    return [
        *vit.huggingface_names("layers", f"{prefix}encoder.backbone.", shapes),
        Rename(r"query\.weight", f"{prefix}q.weight"),
        Rename(r"query_updater\.(\w+)", rf"{prefix}query_updater.\1"),
        Rename(r"class_predictor\.(\w+)", rf"{prefix}class_head.\1"),
        *[
            Rename(
                rf"mask_head\.fc{place + 1}\.(\w+)",
                rf"{prefix}mask_head.{2 * place}.\1",
            )
            for place in range(3)
        ],
        Rename(rf"{block}(conv[12]\.\w+)", rf"{prefix}upscale.\1.\2"),
        Rename(rf"{block}layernorm2d\.(\w+)", rf"{prefix}upscale.\1.norm.\2"),
        Rename(r"attn_mask_probs", f"{prefix}attn_mask_probs"),
    ]


def check_whole(tensors: Mapping[str, np.ndarray], *, based: bool) -> None:
    """Raises ValueError for differences without a base, or a base without differences.

    EoMT's authors publish their DINOv3 models as differences to Meta's weights, whose
    licence forbids redistribution. Heads are complete.

    Args:
      tensors: tensors of EoMT, by name.
      based: whether base weights are given.
    """
    scale = tensors.get("network.encoder.backbone.norm.weight")
    whole = scale is None or np.mean(np.asarray(scale, np.float32)) > _LEAST_SCALE
    if whole and based:
        raise ValueError(
            "network.encoder.backbone: expected differences to the weights of --base,"
            " got weights, which need no base"
        )
    if not whole and not based:
        raise ValueError(
            "network.encoder.backbone: expected weights, got differences to the weights"
            " of Meta's DINOv3, as EoMT's authors publish them; download these and give"
            " the folder or file with --base (dinov3-vitl16-pretrain-lvd1689m for the"
            " large one)"
        )

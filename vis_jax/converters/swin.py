"""Swin transformer weights of Mask2Former models and Microsoft's ImageNet files."""

from vis_jax.converters.rules import NameRule, Rename
from vis_jax.converters.transforms import kernel, position_table, same


def norm_rule(source: str, target: str) -> tuple[NameRule, NameRule]:
    """Returns rules for scale and bias of a layer or group norm."""
    return (
        NameRule(rf"{source}\.weight", ((f"params/{target}/scale", same),)),
        NameRule(rf"{source}\.bias", ((f"params/{target}/bias", same),)),
    )


def linear_rule(source: str, target: str) -> tuple[NameRule, NameRule]:
    """Returns rules for kernel and bias of a linear layer or convolution."""
    return (
        NameRule(rf"{source}\.weight", ((f"params/{target}/kernel", kernel),)),
        NameRule(rf"{source}\.bias", ((f"params/{target}/bias", same),)),
    )


def swin_rules(source: str, target: str) -> list[NameRule]:
    """Returns rules for a Swin transformer.

    Args:
      source: prefix of the names, 'backbone.'.
      target: path of the module without its collection, 'backbone/'.
    """
    source = source.replace(".", r"\.")
    block, path = rf"{source}layers\.(\d)\.blocks\.(\d+)", rf"{target}layers_\1_\2"
    table = "attn/relative_position_bias_table"
    return [
        *linear_rule(rf"{source}patch_embed\.proj", f"{target}patch_embed/proj"),
        *norm_rule(rf"{source}patch_embed\.norm", f"{target}patch_embed/norm"),
        *norm_rule(rf"{block}\.norm(\d)", rf"{path}/norm\3"),
        *linear_rule(rf"{block}\.attn\.(qkv|proj)", rf"{path}/attn/\3"),
        *linear_rule(rf"{block}\.mlp\.(fc\d)", rf"{path}/mlp/\3"),
        NameRule(
            rf"{block}\.attn\.relative_position_bias_table",
            ((f"params/{path}/{table}", position_table),),
        ),
        *norm_rule(
            rf"{source}layers\.(\d)\.downsample\.norm", rf"{target}downsample_\1/norm"
        ),
        *linear_rule(
            rf"{source}layers\.(\d)\.downsample\.(reduction)",
            rf"{target}downsample_\1/\2",
        ),
        *norm_rule(rf"{source}norm(\d)", rf"{target}norm\1"),
        NameRule(
            rf"{block}\.attn\.relative_position_index|{block}\.attn_mask",
            dropped="computed from the window",
        ),
    ]


# Microsoft's ImageNet files have no prefix and include a final norm and classifier.
MICROSOFT = [Rename(r"((?:patch_embed|layers|norm\d)\..*)", r"backbone.\1")]
CLASSIFIER = NameRule(r"(norm|head)\..*", dropped="ImageNet classifier")
# The norms of the four outputs exist only in detectors and start as the identity.
OUTPUT_NORMS = r"params/backbone/norm\d/(scale|bias)"

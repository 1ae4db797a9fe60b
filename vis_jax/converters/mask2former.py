"""Weights of Mask2Former and Mask2Former-VIS (facebookresearch/Mask2Former).

Image and video models share names. `CLIP_DECODER` fills our Mask2Former-VIS,
`FRAME_DECODER` IFR, whose recurrence has no counterpart in the files.
"""

from vis_jax.converters.resnet import resnet_rules
from vis_jax.converters.rules import NameRule, Rename, Transform
from vis_jax.converters.swin import linear_rule, norm_rule, swin_rules
from vis_jax.converters.transforms import first_rows, kernel, rows, same

_PIXELS = r"sem_seg_head\.pixel_decoder\."
_QUERIES = r"sem_seg_head\.predictor\."
_ENCODER = rf"{_PIXELS}transformer\.encoder\.layers\.(\d+)\."

# Alternative spellings: files from before the pixel decoder had its own prefix, and
# released files that call queries static.
OLD_NAMES = [
    Rename(
        r"sem_seg_head\.((?:input_proj|transformer|adapter_1|layer_1|mask_features)\..*)",
        r"sem_seg_head.pixel_decoder.\1",
        alias=True,
    ),
    Rename(
        r"sem_seg_head\.predictor\.static_query\.weight",
        r"sem_seg_head.predictor.query_feat.weight",
        alias=True,
    ),
]

PIXEL_DECODER = [
    *linear_rule(rf"{_PIXELS}input_proj\.(\d)\.0", r"pixel_decoder/input_proj_\1"),
    *norm_rule(rf"{_PIXELS}input_proj\.(\d)\.1", r"pixel_decoder/input_proj_\1/norm"),
    NameRule(
        rf"{_PIXELS}transformer\.level_embed",
        (("params/pixel_decoder/level_embed", same),),
    ),
    *linear_rule(
        rf"{_ENCODER}self_attn\.(\w+)", r"pixel_decoder/encoder_\1/self_attn/\2"
    ),
    *norm_rule(rf"{_ENCODER}(norm\d)", r"pixel_decoder/encoder_\1/\2"),
    *linear_rule(rf"{_ENCODER}(linear\d)", r"pixel_decoder/encoder_\1/\2"),
    *linear_rule(rf"{_PIXELS}(adapter_1|layer_1|mask_features)", r"pixel_decoder/\1"),
    *norm_rule(rf"{_PIXELS}(adapter_1|layer_1)\.norm", r"pixel_decoder/\1/norm"),
]

HEADS = [
    *norm_rule(rf"{_QUERIES}decoder_norm", "decoder/heads/decoder_norm"),
    *linear_rule(
        rf"{_QUERIES}mask_embed\.layers\.(\d)", r"decoder/heads/mask_embed/layers_\1"
    ),
    *[
        rule._replace(fresh=True)
        for rule in linear_rule(rf"{_QUERIES}class_embed", "decoder/heads/class_embed")
    ],
    *[
        NameRule(
            rf"{_QUERIES}{table}\.weight",
            ((f"params/decoder/tables/{table}", first_rows),),
        )
        for table in ("query_feat", "query_embed")
    ],
    NameRule(
        rf"{_QUERIES}level_embed\.weight",
        (("params/decoder/tables/level_embed", same),),
    ),
    NameRule(
        r"criterion\.empty_weight", dropped="class weights are settings of the loss"
    ),
]


def attention_rules(source: str, *targets: str) -> list[NameRule]:
    """Returns rules for PyTorch's attention, with fused q, k and v, to each target."""

    def fused(leaf: str, transform: Transform) -> tuple:
        return tuple(
            (f"params/{target}/{name}/{leaf}", rows(part, 3, transform))
            for target in targets
            for part, name in enumerate(("query", "key", "value"))
        )

    def out(leaf: str, transform: Transform) -> tuple:
        return tuple((f"params/{target}/out/{leaf}", transform) for target in targets)

    return [
        NameRule(rf"{source}\.in_proj_weight", fused("kernel", kernel)),
        NameRule(rf"{source}\.in_proj_bias", fused("bias", same)),
        NameRule(rf"{source}\.out_proj\.weight", out("kernel", kernel)),
        NameRule(rf"{source}\.out_proj\.bias", out("bias", same)),
    ]


def _layer_rules(cross: list[str], self_: list[str], ffn: list[str]) -> list[NameRule]:
    """Returns rules for transformer layers to the modules at these paths.

    Args:
      cross, self_: paths with \\1 for the layer and {} for 'attention' or 'norm'.
      ffn: the same with {} for '' or '_norm'.
    """
    rules = []
    parts = (("cross", "multihead_attn", cross), ("self", "self_attn", self_))
    for name, module, paths in parts:
        layer = rf"{_QUERIES}transformer_{name}_attention_layers\.(\d+)\."
        rules += attention_rules(
            layer + module, *[path.format("attention") for path in paths]
        )
        rules += _norm_rules(layer + "norm", [path.format("norm") for path in paths])
    layer = rf"{_QUERIES}transformer_ffn_layers\.(\d+)\."
    for leaf, path, transform in (("weight", "kernel", kernel), ("bias", "bias", same)):
        targets = tuple((f"params/{p.format('')}/\\2/{path}", transform) for p in ffn)
        rules.append(NameRule(rf"{layer}(linear\d)\.{leaf}", targets))
    return rules + _norm_rules(layer + "norm", [path.format("_norm") for path in ffn])


def _norm_rules(source: str, paths: list[str]) -> list[NameRule]:
    """Returns rules for scale and bias of a norm to several targets."""
    return [
        NameRule(
            rf"{source}\.{old}", tuple((f"params/{path}/{new}", same) for path in paths)
        )
        for old, new in (("weight", "scale"), ("bias", "bias"))
    ]


CLIP_DECODER = _layer_rules(
    [r"decoder/cross_{}_\1"], [r"decoder/self_{}_\1"], [r"decoder/ffn{}_\1"]
)

# IFR's recurrence is initialised at random (paper) ..
FRAME_DECODER = [
    NameRule(
        rf"{_QUERIES}transformer_(cross_attention|self_attention|ffn)_layers\..*",
        dropped="IFR has other decoder layers",
    )
]
# .. or from similar layers. The temporal attention has no similar layer.
FRAME_DECODER_WARM = _layer_rules(
    [r"decoder/frame_\1/cross_{}"],
    [r"decoder/frame_\1/self_{}", r"decoder/clip_\1/self_{}"],
    [r"decoder/frame_\1/ffn{}", r"decoder/clip_\1/ffn{}"],
)
# Modules without a counterpart, and each group's optional vector.
FRAME_DECODER_WARM_NEW = (
    r"params/decoder/clip_\d+/temporal_(attention|norm)/.*",
    r"params/decoder/frame_\d+/group",
)
FRAME_DECODER_NEW = r"params/decoder/(frame|clip)_\d+/.*"

BACKBONE = [
    *resnet_rules("backbone.", "backbone/"),
    *swin_rules("backbone.", "backbone/"),
]


def without_frame_ffn(rules: list[NameRule]) -> list[NameRule]:
    """Returns the rules for a recurrence without feed-forward (`frame_ffn=False`)."""
    return [
        rule._replace(
            targets=tuple(t for t in rule.targets if "/frame_\\1/ffn" not in t[0])
        )
        for rule in rules
    ]

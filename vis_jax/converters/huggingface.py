"""Maps names of Hugging Face's Mask2FormerForUniversalSegmentation to Mask2Former's.

Covers both spellings of the Swin backbone: as in files, and in memory with transformers
5 (`encoder.swin.`, `attention.q_proj`, ..).
"""

from vis_jax.converters.rules import NameRule, Rename

_PIXEL = r"model\.pixel_level_module\."
_SWIN = rf"{_PIXEL}encoder\.(?:|swin\.|model\.)"  # files have the first, empty one
_BLOCK = rf"{_SWIN}encoder\.layers\.(\d)\.blocks\.(\d+)\."
_OUR_BLOCK = r"backbone.layers.\1.blocks.\2."
_ENCODER = rf"{_PIXEL}decoder\.encoder\.layers\.(\d+)\."
_OUR_ENCODER = r"sem_seg_head.pixel_decoder.transformer.encoder.layers.\1."
_DECODER = r"model\.transformer_module\.decoder\."
_QUERIES = "sem_seg_head.predictor."

# (name in files, name in memory), in the order of the fused projection.
_QKV = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))

SWIN = [
    Rename(
        rf"{_SWIN}embeddings\.patch_embeddings\.projection\.(\w+)",
        r"backbone.patch_embed.proj.\1",
    ),
    Rename(rf"{_SWIN}embeddings\.norm\.(\w+)", r"backbone.patch_embed.norm.\1"),
    *[
        Rename(
            rf"{_BLOCK}attention\.(?:self\.{file}|{memory})\.(\w+)",
            rf"{_OUR_BLOCK}attn.qkv.\3",
            part,
            3,
        )
        for part, (file, memory) in enumerate(_QKV)
    ],
    Rename(
        rf"{_BLOCK}attention\.(?:self|relative_position_bias)\.(relative_position_\w+)",
        rf"{_OUR_BLOCK}attn.\3",
    ),
    Rename(
        rf"{_BLOCK}attention\.(?:output\.dense|o_proj)\.(\w+)",
        rf"{_OUR_BLOCK}attn.proj.\3",
    ),
    Rename(rf"{_BLOCK}layernorm_before\.(\w+)", rf"{_OUR_BLOCK}norm1.\3"),
    Rename(rf"{_BLOCK}layernorm_after\.(\w+)", rf"{_OUR_BLOCK}norm2.\3"),
    Rename(
        rf"{_BLOCK}(?:intermediate\.dense|mlp\.fc1)\.(\w+)", rf"{_OUR_BLOCK}mlp.fc1.\3"
    ),
    Rename(rf"{_BLOCK}(?:output\.dense|mlp\.fc2)\.(\w+)", rf"{_OUR_BLOCK}mlp.fc2.\3"),
    Rename(
        rf"{_SWIN}encoder\.layers\.(\d)\.downsample\.(.*)",
        r"backbone.layers.\1.downsample.\2",
    ),
    *[
        Rename(
            rf"{_PIXEL}encoder\.hidden_states_norms\.stage{stage + 1}\.(\w+)",
            rf"backbone.norm{stage}.\1",
        )
        for stage in range(4)
    ],
    Rename(
        rf"{_PIXEL}encoder\.hidden_states_norms\.(\d)\.(\w+)", r"backbone.norm\1.\2"
    ),
]

PIXEL_DECODER = [
    Rename(
        rf"{_PIXEL}decoder\.input_projections\.(.*)",
        r"sem_seg_head.pixel_decoder.input_proj.\1",
    ),
    Rename(
        rf"{_PIXEL}decoder\.level_embed",
        "sem_seg_head.pixel_decoder.transformer.level_embed",
    ),
    Rename(rf"{_ENCODER}self_attn\.(.*)", rf"{_OUR_ENCODER}self_attn.\2"),
    Rename(rf"{_ENCODER}self_attn_layer_norm\.(\w+)", rf"{_OUR_ENCODER}norm1.\2"),
    Rename(rf"{_ENCODER}final_layer_norm\.(\w+)", rf"{_OUR_ENCODER}norm2.\2"),
    Rename(rf"{_ENCODER}fc(\d)\.(\w+)", rf"{_OUR_ENCODER}linear\2.\3"),
    Rename(
        rf"{_PIXEL}decoder\.(adapter_1|layer_1)\.0\.weight",
        r"sem_seg_head.pixel_decoder.\1.weight",
    ),
    Rename(
        rf"{_PIXEL}decoder\.(adapter_1|layer_1)\.1\.(\w+)",
        r"sem_seg_head.pixel_decoder.\1.norm.\2",
    ),
    Rename(
        rf"{_PIXEL}decoder\.mask_projection\.(\w+)",
        r"sem_seg_head.pixel_decoder.mask_features.\1",
    ),
]


def _layer(part: str) -> str:
    return rf"{_QUERIES}transformer_{part}_layers.\1."


_THEIR_LAYER = rf"{_DECODER}layers\.(\d+)\."

QUERY_DECODER = [
    # Self-attention is split in the files; cross-attention is fused there, too.
    *[
        Rename(
            rf"{_THEIR_LAYER}self_attn\.{name}_proj\.{leaf}",
            _layer("self_attention") + f"self_attn.in_proj_{leaf}",
            part,
            3,
        )
        for part, name in enumerate("qkv")
        for leaf in ("weight", "bias")
    ],
    Rename(
        rf"{_THEIR_LAYER}self_attn\.out_proj\.(\w+)",
        _layer("self_attention") + r"self_attn.out_proj.\2",
    ),
    Rename(
        rf"{_THEIR_LAYER}self_attn_layer_norm\.(\w+)",
        _layer("self_attention") + r"norm.\2",
    ),
    Rename(
        rf"{_THEIR_LAYER}cross_attn\.(.*)",
        _layer("cross_attention") + r"multihead_attn.\2",
    ),
    Rename(
        rf"{_THEIR_LAYER}cross_attn_layer_norm\.(\w+)",
        _layer("cross_attention") + r"norm.\2",
    ),
    Rename(rf"{_THEIR_LAYER}fc(\d)\.(\w+)", _layer("ffn") + r"linear\2.\3"),
    Rename(rf"{_THEIR_LAYER}final_layer_norm\.(\w+)", _layer("ffn") + r"norm.\2"),
    Rename(rf"{_DECODER}layernorm\.(\w+)", rf"{_QUERIES}decoder_norm.\1"),
    Rename(
        rf"{_DECODER}mask_predictor\.mask_embedder\.(\d)\.0\.(\w+)",
        rf"{_QUERIES}mask_embed.layers.\1.\2",
    ),
    Rename(
        r"model\.transformer_module\.queries_features\.weight",
        f"{_QUERIES}query_feat.weight",
    ),
    Rename(
        r"model\.transformer_module\.queries_embedder\.weight",
        f"{_QUERIES}query_embed.weight",
    ),
    Rename(
        r"model\.transformer_module\.level_embed\.weight",
        f"{_QUERIES}level_embed.weight",
    ),
    Rename(r"class_predictor\.(\w+)", rf"{_QUERIES}class_embed.\1"),
]

MODEL = [*SWIN, *PIXEL_DECODER, *QUERY_DECODER]

UNUSED = NameRule(rf"{_SWIN}layernorm\..*", dropped="not used by the model")

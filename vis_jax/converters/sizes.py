"""Sizes that tensor shapes do not reveal, such as the number of attention heads.

Hugging Face files have them in config.json, and Swin's window follows from its relative
position tables. Sizes stated nowhere are listed in the report.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_TABLE = re.compile(r".*relative_position_bias_table")

# Maps Mask2Former's config.json to the equivalent fields of a config.
_MODEL = {
    "feature_size": ("model.pixel_decoder.dim",),
    "mask_feature_size": ("model.pixel_decoder.mask_dim",),
    "encoder_layers": ("model.pixel_decoder.layers",),
    "encoder_feedforward_dim": ("model.pixel_decoder.mlp_dim",),
    "num_attention_heads": ("model.pixel_decoder.heads",),
    "hidden_dim": ("model.mask_decoder.dim",),
}
_DECODER = {
    "num_attention_heads": ("model.mask_decoder.heads",),
    "dim_feedforward": ("model.mask_decoder.mlp_dim",),
    "decoder_layers": ("model.mask_decoder.layers",),
}
_SWIN = {
    "embed_dim": ("model.backbone.dim",),
    "depths": ("model.backbone.depths",),
    "num_heads": ("model.backbone.heads",),
    "window_size": ("model.backbone.window",),
}
# Fields with a single supported value.
_FIXED = {
    "pre_norm": False,
    "common_stride": 4,
    "feature_strides": [4, 8, 16, 32],
    "activation_function": "relu",
}
_FIXED_SWIN = {
    "patch_size": 4,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "use_absolute_embeddings": False,
    "hidden_act": "gelu",
}
_UNSEEN = ("model.pixel_decoder.heads", "model.mask_decoder.heads")


def check_window(
    tensors: Mapping[str, np.ndarray], fields: Mapping[str, Any], *, resize: bool
) -> None:
    """Checks the window of a Swin transformer against the config.

    Args:
      tensors: by name; relative position tables have (2 window - 1)^2 rows.
      fields: fields of the config, by path.
      resize: allow tables of another window.

    Raises:
      ValueError: the windows differ.
    """
    window = fields.get("model.backbone.window")
    if window is None or resize:
        return
    for name, table in tensors.items():
        if _TABLE.fullmatch(name) and table.ndim == 2:
            theirs = (math.isqrt(table.shape[0]) + 1) // 2
            if theirs != window:
                raise ValueError(
                    f"{name} is for windows of {theirs} tokens, the config has"
                    f" model.backbone.window {window}; give"
                    f" --config.model.backbone.window={theirs}, or --resize_windows to"
                    " start a training with another window"
                )


def check_config(
    config: Mapping[str, Any], fields: Mapping[str, Any], *, decoder: bool
) -> tuple[str, ...]:
    """Checks the config.json of a Mask2Former against our config.

    Args:
      config: content of config.json.
      fields: fields of our config, by path, such as 'model.backbone.window'.
      decoder: whether the decoder's layers are used.

    Returns:
      Report lines.

    Raises:
      ValueError: lists every mismatch and how to fix it.
    """
    kind = config.get("model_type")
    if kind != "mask2former":
        raise ValueError(f"config.json: model_type: expected mask2former, got {kind!r}")
    backbone = config.get("backbone_config")
    backbone = backbone if isinstance(backbone, Mapping) else {}
    model = dict(config)
    if type(model.get("decoder_layers")) is int:
        model["decoder_layers"] -= 1  # Hugging Face also counts the one before
    wrong = [
        *_disagreements(model, _MODEL, fields, ""),
        *(_disagreements(model, _DECODER, fields, "") if decoder else ()),
        *_disagreements(backbone, _SWIN, fields, "backbone_config."),
        *_unlike(config, _FIXED, ""),
        *_unlike(backbone, _FIXED_SWIN, "backbone_config."),
    ]
    if wrong:
        raise ValueError("config.json: " + "; ".join(wrong))
    return ("sizes as config.json says",)


def config_of(fields: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Returns the config.json of the same Mask2Former for Hugging Face.

    Args:
      fields: fields of our config, by path.
      labels: class names.

    Raises:
      ValueError: the backbone is not a Swin transformer.
    """
    if "model.backbone.window" not in fields:
        raise ValueError(
            "layout huggingface: expected a Swin transformer, the only backbone that"
            " Hugging Face's names are known for"
        )
    model = _filled(_MODEL, fields) | _filled(_DECODER, fields)
    backbone = _filled(_SWIN, fields)
    last = backbone["embed_dim"] * 2 ** (len(backbone["depths"]) - 1)
    stages = [f"stage{number}" for number in range(1, len(backbone["depths"]) + 1)]
    return {
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "model_type": "mask2former",
        **_FIXED,
        **model,
        # Hugging Face counts the prediction before the layers.
        "decoder_layers": model["decoder_layers"] + 1,
        "num_queries": fields["model.mask_decoder.queries"],
        "id2label": dict(enumerate(labels)),
        "label2id": {name: label for label, name in enumerate(labels)},
        "backbone_config": {
            "model_type": "swin",
            **_FIXED_SWIN,
            **backbone,
            "hidden_size": last,
            "out_features": stages,
        },
    }


def _filled(
    table: Mapping[str, Sequence[str]], fields: Mapping[str, Any]
) -> dict[str, Any]:
    return {name: _plain(fields[paths[0]]) for name, paths in table.items()}


def unseen(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns a report line that lists the sizes no file reveals."""
    found = [f"{name} {fields[name]}" for name in _UNSEEN if name in fields]
    if not found:
        return ()
    return (f"not in the file, as the config has it: {', '.join(found)}",)


def resized(
    report_used: Mapping[str, tuple[str, ...]],
    tensors: Mapping[str, Any],
    shapes: Mapping[str, Any],
) -> list[str]:
    """Returns report lines on resized tables and dropped queries.

    Args:
      report_used: target paths by source name.
      tensors: tensors of the source, by name.
      shapes: shapes of the targets, by path.
    """
    windows: dict[tuple[int, int], int] = {}
    queries = []
    for name, paths in report_used.items():
        for path in paths:
            old, new = tensors[name].shape[:1], shapes[path][:1]
            if old == new:
                continue
            if path.endswith("relative_position_bias_table"):
                both = ((math.isqrt(old[0]) + 1) // 2, (math.isqrt(new[0]) + 1) // 2)
                windows[both] = windows.get(both, 0) + 1
            elif "/tables/query_" in path:
                queries.append(f"{path}: the first {new[0]} of {old[0]} queries")
    tables = [
        f"{count} tables of relative positions resized from window {old} to {new}"
        for (old, new), count in windows.items()
    ]
    return [*tables, *queries]


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns class names in label order; empty if the config has none.

    Raises:
      ValueError: `id2label` does not name each of 0, 1, ..
    """
    found = config.get("id2label")
    if not found:
        return ()
    try:
        by_label = {int(label): name for label, name in dict(found).items()}
    except (TypeError, ValueError):
        by_label = {}
    names = [by_label.get(label) for label in range(len(by_label))]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("config.json: id2label: expected a name for each of 0, 1, ..")
    texts = tuple(str(name) for name in names)
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in texts)
    return () if unnamed else texts


def _disagreements(
    theirs: Mapping[str, Any],
    table: Mapping[str, Sequence[str]],
    fields: Mapping[str, Any],
    where: str,
) -> list[str]:
    wrong = []
    for name, paths in table.items():
        for path in paths:
            if name not in theirs or path not in fields:
                continue
            value, ours = _plain(theirs[name]), _plain(fields[path])
            if value != ours:
                text = str(theirs[name]).replace(" ", "")
                wrong.append(
                    f"{where}{name} is {value}, the config has {path} {ours}, give"
                    f" --config.{path}={text}"
                )
    return wrong


def _unlike(
    theirs: Mapping[str, Any], fixed: Mapping[str, Any], where: str
) -> list[str]:
    return [
        f"{where}{name}: expected {value}, got {theirs[name]!r:.40}"
        for name, value in fixed.items()
        if name in theirs and theirs[name] != value
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value

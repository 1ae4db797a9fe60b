"""Identifies the kind of a model folder."""

import json
import os
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from vis_jax.paths import check_regular, is_incomplete
from vis_jax.training.weights_file import WEIGHTS_FILE

RECORD = "export.json"  # describes an export
VERSION = 1  # version of the record and the export formats
_MOST_BYTES = 1 << 20  # maximum size of the record

# checkpoint: a run, its folder of checkpoints, or one Orbax checkpoint; safetensors:
# variables under our own paths, with or without a record; published: weights under the
# names of another library; the others are programs.
Kind = Literal["checkpoint", "safetensors", "published", "stablehlo", "onnx"]


def kind_of(folder: str | os.PathLike) -> Kind:
    """Returns the kind of a folder; checkpoint if nothing identifies it.

    Raises:
      ValueError: its record is damaged; names it.
    """
    record = read_record(folder)
    has_weights = (epath.Path(folder) / WEIGHTS_FILE).exists()
    if record.get("layout"):
        return "published"
    known: dict[object, Kind] = {
        "safetensors": "safetensors",
        "stablehlo": "stablehlo",
        "onnx": "onnx",
    }
    if record:
        kind = known.get(record.get("format"))
        if kind is None:
            raise ValueError(
                f"{epath.Path(folder) / RECORD}: format: expected one of {[*known]},"
                f" got {record.get('format')!r:.40}"
            )
        return kind
    return "safetensors" if has_weights else "checkpoint"


def no_weights(folder: str | os.PathLike, kind: Kind) -> str:
    """Explains why an export of this kind has no weights for `vis_jax`."""
    if kind == "published":
        layout = read_record(folder).get("layout")
        return (
            f"expected weights under the names of vis_jax, got those of {layout};"
            f" `convert --kind {layout}` makes a checkpoint of it"
        )
    return f"expected weights, got a program of format {kind}, which only runs"


def read_record(folder: str | os.PathLike) -> Mapping[str, Any]:
    """Reads `export.json`; empty if there is none.

    Raises:
      ValueError: it is damaged, or of another version, or the folder is incomplete;
        names it.
    """
    if is_incomplete(folder):
        raise ValueError(
            f"{os.fspath(folder)}: expected a complete folder, got one whose copy to"
            " the bucket goes on or broke off; run the command that writes it again"
        )
    path = epath.Path(folder) / RECORD
    if not path.exists():
        return {}
    check_regular(path)
    if path.stat().length > _MOST_BYTES:
        raise ValueError(f"{path}: expected at most {_MOST_BYTES} bytes")
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON: {error!s:.200}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: expected fields, got {found!r:.40}")
    version = found.get("version")
    if version != VERSION:
        raise ValueError(f"{path}: version: expected {VERSION}, got {version!r:.40}")
    return found

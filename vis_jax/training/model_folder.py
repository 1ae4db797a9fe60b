"""Kinds of folders that a model lies in: the one place that tells them apart."""

import json
import os
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from vis_jax.paths import on_disk
from vis_jax.training.weights_file import WEIGHTS_FILE

RECORD = "export.json"  # of every export: what it is
VERSION = 1  # of the record and of what the formats write
_MOST_BYTES = 1 << 20  # of that file

# checkpoint: a run, its folder of checkpoints, or one of them, as Orbax writes it;
# safetensors: variables under our own paths, with or without a record; published: the
# same weights under the names of another library; the others are programs.
Kind = Literal["checkpoint", "safetensors", "published", "stablehlo", "onnx"]


def kind_of(folder: str | os.PathLike) -> Kind:
    """The kind of a folder; one with nothing to tell is taken for a checkpoint.

    Raises:
      ValueError: its record is damaged, or an export is in a bucket; names it.
    """
    record = read_record(folder)
    there = (epath.Path(folder) / WEIGHTS_FILE).exists()
    if record or there:
        on_disk("export", folder)
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
    return "safetensors" if there else "checkpoint"


def no_weights(folder: str | os.PathLike, kind: Kind) -> str:
    """Why an export of a kind has no weights for `vis_jax` to read, in words."""
    if kind == "published":
        layout = read_record(folder).get("layout")
        return (
            f"expected weights under the names of vis_jax, got those of {layout};"
            f" `convert --kind {layout}` makes a checkpoint of it"
        )
    return f"expected weights, got a program of format {kind}, which only runs"


def read_record(folder: str | os.PathLike) -> Mapping[str, Any]:
    """The fields of `export.json`; empty if there is none.

    Raises:
      ValueError: it is damaged, or of another version; names it.
    """
    path = epath.Path(folder) / RECORD
    if not path.exists():
        return {}
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

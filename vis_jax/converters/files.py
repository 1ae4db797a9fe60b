"""Reads published weights: a file, shards with an index, or a folder.

No code in a file is run, and only regular files of bounded size are opened.
"""

import json
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from vis_jax.converters.safetensors_file import (
    Entry,
    read_entries,
    read_safetensors,
)
from vis_jax.converters.stand_ins import NumpyArray, TorchTensor
from vis_jax.converters.torch_files import read_torch, view
from vis_jax.converters.unpickle import BoundedFile, WeightsUnpickler

MOST_BYTES = 16 << 30  # maximum size of a weights file
_MOST_JSON = 16 << 20  # bytes of config.json or of an index

# Keys under which tools store the weights, most specific first; EMA weights are used
# only if there is nothing else, or with `key`.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "blobs")
_AVERAGES = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema_state",
    "ema_model",
    "ema",
)
_MOST_WRAPPERS = 8  # nesting depth

# Prefixes that wrappers add to every name.
_PREFIXES = ("module.", "ema_model.", "model.")
_HUGGING_FACE = "model.pixel_level_module."  # here the prefix is part of the names

# Files of a Hugging Face folder; the first that exists is read.
_IN_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
CONFIG = "config.json"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.\w+$")


class WeightsSource(NamedTuple):
    """Published weights.

    Attributes:
      files: the files read.
      tensors: by name.
      beside: entries beside the tensors, such as '__author__' and 'meta'.
      config: config.json beside the file, if there is one.
      outside: names without the requested prefix.
      notes: report lines on what was read.
    """

    files: tuple[Path, ...]
    tensors: dict[str, np.ndarray]
    beside: Mapping[Any, Any]
    config: Mapping[str, Any] | None
    outside: tuple[str, ...]
    notes: tuple[str, ...]


class _Content(NamedTuple):
    """Content of one file."""

    loaded: Any
    read: Callable[[Any], np.ndarray | None]  # a value's tensor, None if it is not one


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a file by name; see `read_source`."""
    return read_source(path).tensors


def read_source(path: str | Path, *, key: str = "", prefix: str = "") -> WeightsSource:
    """Reads published weights.

    Args:
      path: a .pkl of arrays or tensors (detectron2), a .pth, .pt, .ckpt or .bin of
        PyTorch, old or new, a .safetensors file, the .index.json of shards, or a
        folder with one of these and config.json (Hugging Face).
      key: key of the weights within a file, such as 'model_ema'; empty = the usual
        keys.
      prefix: prefix of the names to keep, such as 'ema_model.'; it is removed.

    Raises:
      ValueError: the file, which is named, is damaged, of another kind, or names code.
    """
    path = Path(path)
    main = _in_folder(path) if path.is_dir() else path
    _check_shard(main)
    files = _shards(main) if main.name.endswith(".index.json") else (main,)
    tensors: dict[str, np.ndarray] = {}
    beside: dict[Any, Any] = {}
    notes: dict[str, None] = {}
    for file in files:
        one = _read_file(file, key)
        for name in one.tensors.keys() & tensors.keys():
            raise ValueError(f"{file}: {name!r}: another shard has it, too")
        tensors |= one.tensors
        beside |= one.beside
        notes |= dict.fromkeys(one.notes)
    if main.name.endswith(".index.json"):
        _check_index(main, tensors)
    outside = tuple(name for name in tensors if not name.startswith(prefix))
    if len(outside) == len(tensors):
        raise ValueError(f"{path}: --prefix: no name begins with {prefix!r}")
    tensors = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    tensors, common = _without_prefixes(tensors)
    if prefix:
        notes[f"the names that begin with {prefix!r}"] = None
    if common:
        notes[f"the names without their prefix {common!r}"] = None
    config = _config_beside(main)
    return WeightsSource(files, tensors, beside, config, outside, tuple(notes))


@contextmanager
def open_safetensors(path: Path) -> Iterator[dict[str, Entry]]:
    """Opens a .safetensors file; yields its tensors, unread.

    Raises:
      ValueError: the file, which is named, is damaged or of another kind.
    """
    with _opened(path) as file:
        try:
            entries = read_entries(file)
        except Exception as error:
            raise _unreadable(path, error) from error
        yield entries


def read_object(path: Path) -> dict[str, Any]:
    """Returns the fields of a JSON file.

    Raises:
      ValueError: the file, which is named, does not hold a JSON object.
    """
    _check_regular(path, _MOST_JSON)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON: {error!s:.200}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected fields, got {type(content).__name__}")
    return content


def _in_folder(folder: Path) -> Path:
    for name in _IN_FOLDER:
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"{folder}: expected a folder with one of {[*_IN_FOLDER]}")


def _check_shard(path: Path) -> None:
    match = _SHARD.search(path.name)
    if match and int(match[2]) > 1:
        raise ValueError(
            f"{path}: this is one of {int(match[2])} shards; give their folder, or the"
            " .index.json beside them"
        )


def _shards(index: Path) -> tuple[Path, ...]:
    """Returns the files that an index names, all of them beside it."""
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index}: weight_map: expected file names, got {name!r}")
    if not names:
        raise ValueError(f"{index}: weight_map: expected tensors, got none")
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise ValueError(
            f"{index}: {len(missing)} of {len(names)} shards are missing, the first is"
            f" {missing[0]}"
        )
    return tuple(index.parent / name for name in names)


def _weight_map(index: Path) -> dict[str, str]:
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict) or not all(
        isinstance(name, str) for name in found.values()
    ):
        raise ValueError(f"{index}: weight_map: expected file names by tensor")
    return found


def _check_index(index: Path, tensors: Mapping) -> None:
    """Raises ValueError unless the shards contain what their index lists."""
    missing = [name for name in _weight_map(index) if name not in tensors]
    if missing:
        raise ValueError(
            f"{index}: {len(missing)} tensors are not in their shards, the first is"
            f" {missing[0]!r}"
        )


def _config_beside(path: Path) -> Mapping[str, Any] | None:
    """Returns Hugging Face's config.json; ignores other tools' files of this name."""
    beside = path.parent / CONFIG
    if not beside.is_file():
        return None
    config = read_object(beside)
    return config if "model_type" in config else None


def _check_regular(path: Path, most: int) -> None:
    """Raises ValueError unless the path is a regular file of acceptable size."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: expected a regular file")
    if status.st_size > most:
        raise ValueError(f"{path}: expected at most {most} bytes, got {status.st_size}")
    if status.st_size == 0:
        raise ValueError(f"{path}: the file is empty")


def _read_file(path: Path, key: str) -> WeightsSource:
    """Reads one file, keeping its names."""
    readers: dict[str, Callable[[BinaryIO], _Content]] = {
        ".safetensors": _read_safetensors,
        ".pkl": _read_pickle,
        **dict.fromkeys((".pth", ".pt", ".ckpt", ".bin"), _read_torch),
    }
    if path.suffix not in readers:
        raise ValueError(f"{path}: expected one of {sorted(readers)}, or a folder")
    with _opened(path) as file:
        try:
            return _source(path, readers[path.suffix](file), key)
        except Exception as error:  # a damaged pickle can raise anything
            raise _unreadable(path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that may contain weights."""
    _check_regular(path, MOST_BYTES)
    with path.open("rb") as file:
        _check_start(path, file.read(64))
        file.seek(0)
        yield file


def _unreadable(path: Path, error: Exception) -> ValueError:
    cause = f"{error!s:.300}" or type(error).__name__
    if isinstance(error, KeyError):  # unknown instruction
        cause = "damaged, or of another kind"
    return ValueError(f"{path}: not a readable file of weights: {cause}")


def _check_start(path: Path, start: bytes) -> None:
    """Raises ValueError for files commonly mistaken for weights."""
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path}: this is the pointer that git-lfs leaves, not the weights; run"
            " `git lfs pull` in its folder"
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"{path}: this is a web page, not the weights")


def _read_safetensors(file: BinaryIO) -> _Content:
    return _Content(read_safetensors(file), lambda value: value)


def _read_pickle(file: BinaryIO) -> _Content:
    """Reads a pickle of arrays or tensors, or a PyTorch file with this suffix."""
    start = file.read(2)
    file.seek(0)
    if start == b"PK":
        return _read_torch(file)
    loaded = WeightsUnpickler(BoundedFile(file)).load()
    if type(loaded) is int:  # PyTorch's older format begins with a number
        return _read_torch(file)
    return _Content(loaded, lambda value: _array(value, {}))


def _read_torch(file: BinaryIO) -> _Content:
    loaded, storages = read_torch(file)
    return _Content(loaded, lambda value: _array(value, storages))


def _array(value: object, storages: Mapping[str, np.ndarray]) -> np.ndarray | None:
    if isinstance(value, TorchTensor):
        return view(value, storages)
    return value.array if isinstance(value, NumpyArray) else None


def _source(path: Path, content: _Content, key: str) -> WeightsSource:
    loaded, taken = _unwrap(content.loaded, key)
    found = {str(name): content.read(value) for name, value in loaded.items()}
    tensors = {name: value for name, value in found.items() if value is not None}
    if not tensors:
        keys = ", ".join(str(name)[:40] for name in [*found][:8]) or "nothing"
        raise ValueError(f"holds no tensors, but {keys}; --key names where they are")
    beside = content.loaded if isinstance(content.loaded, Mapping) else {}
    notes = (taken,) if taken else ()
    return WeightsSource((path,), tensors, beside, None, (), notes)


def _unwrap(loaded: Any, key: str) -> tuple[Mapping, str]:
    """Returns the dict of tensors inside the wrapper dicts of tools, and its key.

    Raises:
      ValueError: there is no such dict.
    """
    taken = ""
    if not isinstance(loaded, Mapping):
        raise ValueError(f"expected a dict of tensors, got {type(loaded).__name__}")
    if key:
        if not isinstance(loaded.get(key), Mapping):
            names = [str(n)[:40] for n, x in loaded.items() if isinstance(x, Mapping)]
            raise ValueError(f"--key: expected one of {names[:16]}, got {key!r}")
        loaded, taken = loaded[key], f"the weights under {key!r}"
    for _ in range(_MOST_WRAPPERS):
        inside = [
            name
            for name in (*_WRAPPERS, *_AVERAGES)
            if isinstance(loaded.get(name), Mapping)
        ]
        if not inside:
            break
        if inside[0] in _AVERAGES or len(inside) > 1:
            others = f", not {inside[1:]} (see --key)" if inside[1:] else ""
            taken = f"the weights under {inside[0]!r}{others}"
        loaded = loaded[inside[0]]
    return loaded, taken


def _without_prefixes(tensors: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Removes the prefixes that all names share, and returns them."""
    taken = ""
    while True:
        found = next(
            (x for x in _PREFIXES if all(name.startswith(x) for name in tensors)), ""
        )
        hugging_face = any(name.startswith(_HUGGING_FACE) for name in tensors)
        if not found or (hugging_face and found == "model."):
            return tensors, taken
        tensors = {name.removeprefix(found): x for name, x in tensors.items()}
        taken += found

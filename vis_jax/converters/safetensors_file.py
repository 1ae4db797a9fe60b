"""Safetensors format: length of a JSON header, the header, then the tensor data."""

import json
import math
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from vis_jax.converters.torch_files import item_size, numbers

_DTYPES: dict[str, np.dtype | str] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": "bfloat16",
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_LONGEST_HEADER = 100_000_000  # bytes; as in the format's reference library
_MOST_AXES = 32


class Entry(NamedTuple):
    """A tensor's header entry, and its raw bytes."""

    dtype: np.dtype | str
    shape: tuple[int, ...]
    data: np.ndarray  # uint8, memory of the file

    def read(self) -> np.ndarray:
        """Returns the tensor, a view of the file.

        bfloat16 is converted to float32 at once.
        """
        return numbers(self.data, self.dtype).reshape(self.shape)


def read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    """Returns tensors by name; see `Entry.read`.

    Raises:
      ValueError: an entry does not match the file.
    """
    return {name: entry.read() for name, entry in read_entries(file).items()}


def read_entries(file: BinaryIO) -> dict[str, Entry]:
    """Parses the header; no tensor data are read.

    Raises:
      ValueError: an entry does not match the file.
    """
    content = np.memmap(file, np.uint8, mode="r")
    size = content.size - 8
    length = int(np.frombuffer(content[:8], "<u8")[0]) if size >= 0 else 0
    if not 0 < length <= min(size, _LONGEST_HEADER):
        raise ValueError(f"header: expected at most {size} bytes, got {length}")
    header = json.loads(bytes(content[8 : 8 + length]), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("header: expected entries by name")
    header.pop("__metadata__", None)
    data, spent = content[8 + length :], 0
    places: list[tuple[int, int, str]] = []
    entries = {}
    for name, entry in header.items():
        dtype, shape, start, end = _entry(name, entry)
        if not 0 <= start <= end <= data.size:
            raise ValueError(f"{name}: offsets {start}, {end} outside the file")
        if end - start != math.prod(shape) * item_size(dtype):
            raise ValueError(
                f"{name}: {end - start} bytes for {entry['dtype']} of {[*shape]}"
            )
        spent += end - start
        if spent > data.size:
            raise ValueError(f"{name}: shares its numbers with another tensor")
        places.append((start, end, name))
        entries[name] = Entry(dtype, shape, data[start:end])
    if entries:
        _check_contiguous(sorted(places), data.size)
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("header: expected each name once")
    return found


def _check_contiguous(places: list[tuple[int, int, str]], size: int) -> None:
    """Checks that the tensors follow each other without gaps, as the format demands.

    Args:
      places: start, end and name, sorted.
      size: bytes of the tensor data.
    """
    before = 0
    for start, end, name in places:
        if start != before:
            raise ValueError(f"{name}: expected to start at byte {before}, got {start}")
        before = end
    if before != size:
        raise ValueError(f"expected {before} bytes of tensors, got {size}")


def _entry(name: str, entry: object) -> tuple[np.dtype | str, tuple, int, int]:
    """Returns dtype, shape and both offsets of a header entry."""
    if not isinstance(entry, dict):
        raise ValueError(f"{name}: expected an entry, got {type(entry).__name__}")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{name}: dtype: expected one of {[*_DTYPES]}, got {dtype!r}")
    for what, values, most in (("shape", shape, _MOST_AXES), ("offsets", offsets, 2)):
        fits = isinstance(values, list) and len(values) <= most
        if not fits or not all(type(x) is int and x >= 0 for x in values):
            raise ValueError(f"{name}: {what}: expected whole numbers from 0")
    if len(offsets) != 2:
        raise ValueError(f"{name}: expected 2 offsets, got {len(offsets)}")
    return _DTYPES[dtype], tuple(shape), *offsets


def write_safetensors(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] = MappingProxyType({"format": "vis_jax"}),
) -> None:
    """Writes tensors by name, sorted.

    Args:
      path: path of the file; replaced if it exists.
      tensors: tensors of dtypes that the format supports, including `ml_dtypes`'
        bfloat16.
      metadata: text by name; transformers expects a "format", "pt" for its own names.

    Raises:
      ValueError: a tensor has an unsupported dtype.
    """
    names = {str(dtype): name for name, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    arrays, offset = [], 0
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name]).reshape(np.shape(tensors[name]))
        if str(array.dtype) not in names:
            raise ValueError(f"{name}: expected one of {[*names]}, got {array.dtype}")
        header[name] = {
            "dtype": names[str(array.dtype)],
            "shape": [*array.shape],
            "data_offsets": [offset, offset + array.nbytes],
        }
        arrays.append(array)
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format aligns tensor data to 8 bytes
    with open(path, "wb") as file:
        file.write(np.array(len(text), "<u8").tobytes() + text)
        for array in arrays:
            # NumPy buffers only support native dtypes.
            plain = array.view(np.uint16) if str(array.dtype) == "bfloat16" else array
            file.write(plain.data if plain.size else b"")

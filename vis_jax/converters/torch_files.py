"""PyTorch file formats: zip archives since 1.6, and the older series of pickles."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from vis_jax.converters.stand_ins import TorchTensor
from vis_jax.converters.unpickle import BoundedFile, WeightsUnpickler

# First pickle of a .pth from before PyTorch 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_torch(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns a file's content, with tensors as descriptions, and storages by key."""
    if zipfile.is_zipfile(file):
        return _read_zip(file)
    file.seek(0)
    if file.read(4) == b"PK\x03\x04":
        raise ValueError("the end of the zip archive is missing: cut off or damaged")
    return read_legacy(BoundedFile(file))


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    size = BoundedFile(file).size
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        _check_entries(entries.values(), size)
        names = [name for name in entries if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(
                f"expected a zip archive of PyTorch with one data.pkl, got {len(names)}"
            )
        folder = names[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in entries and archive.read(order) != b"little":
            raise ValueError("expected little-endian numbers, got big-endian ones")
        program = io.BytesIO(archive.read(names[0]))
        unpickler = WeightsUnpickler(BoundedFile(program))
        loaded = unpickler.load()
        storages = {}
        for key, storage in unpickler.storages.items():
            name = f"{folder}data/{key}"
            expected = storage.numel * item_size(storage.dtype)
            found = entries[name].file_size if name in entries else None
            if found != expected:
                got = "no such entry" if found is None else f"{found} bytes"
                raise ValueError(f"storage {key}: expected {expected} bytes, got {got}")
            storages[key] = numbers(archive.read(name), storage.dtype)
    return loaded, storages


def _check_entries(entries: Iterable[zipfile.ZipInfo], size: int) -> None:
    """Raises ValueError if the archive unpacks to more than its own size."""
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"{entry.filename[:80]}: expected an entry as PyTorch writes it, got a"
                f" compressed one of {entry.file_size} bytes"
            )
    total = sum(entry.file_size for entry in entries)
    if total > size:
        raise ValueError(f"entries of {total} bytes in an archive of {size}")


def read_legacy(file: BoundedFile) -> tuple[Any, dict[str, np.ndarray]]:
    """Reads the pickles (magic, version, system, weights, keys), then the storages."""
    magic = WeightsUnpickler(file).load()
    if type(magic) is not int or magic != _LEGACY_MAGIC:
        raise ValueError("expected a zip archive or PyTorch's older format")
    for _ in ("version", "system"):
        WeightsUnpickler(file).load()
    unpickler = WeightsUnpickler(file)
    loaded = unpickler.load()
    keys, storages = WeightsUnpickler(file).load(), {}
    if not isinstance(keys, list) or not all(isinstance(x, str) for x in keys):
        raise ValueError("expected a list of the names of storages")
    for key in keys:
        if key not in unpickler.storages:
            raise ValueError(f"storage {key[:80]!r}: no tensor uses it")
        storage = unpickler.storages[key]
        count = int(np.frombuffer(file.read(8), "<i8")[0])
        if count != storage.numel:
            raise ValueError(f"storage {key}: expected {storage.numel}, got {count}")
        data = file.read(count * item_size(storage.dtype))
        storages[key] = numbers(data, storage.dtype)
    return loaded, storages


def item_size(dtype: np.dtype | str) -> int:
    """Returns the bytes per number."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def numbers(data: bytes | np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """Returns a storage's numbers; bfloat16 is widened to float32, its upper half."""
    if dtype == "bfloat16":
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32)
    return np.frombuffer(data, dtype)


def view(tensor: TorchTensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the array that a tensor describes: a view, not a copy.

    Raises:
      ValueError: it exceeds its storage, or repeats elements of it.
    """
    storage = tensor.storage
    run = storage.numbers if storage.numbers is not None else storages[storage.key]
    shape, stride = tensor.shape, tensor.stride
    pairs = list(zip(shape, stride, strict=True))
    last = tensor.offset + sum((n - 1) * step for n, step in pairs)
    if tensor.offset < 0 or (0 not in shape and last >= run.size):
        raise ValueError(f"tensor {shape} reaches beyond storage {storage.key}")
    if any(n > 1 and step == 0 for n, step in pairs):
        raise ValueError(f"tensor {shape} repeats numbers of storage {storage.key}")
    if 0 in shape:
        return np.zeros(shape, run.dtype)
    strides = tuple(step * run.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(
        run[tensor.offset :], shape, strides, writeable=False
    )

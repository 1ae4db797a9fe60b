"""Reading tensors from .pkl, .pth and .safetensors files; nothing in them is run."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vis_jax.converters.unpickle import (
    NumpyArray,
    Storage,
    TorchTensor,
    WeightsUnpickler,
)

# Where tools keep the weights beside other things, most particular first.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "blobs")

_SAFETENSORS: dict[str, np.dtype | str] = {
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

# First of the pickles in a .pth written before PyTorch 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors of a file by name.

    Args:
      path: a .pkl of NumPy arrays (detectron2), a .pth, .pt or .bin of PyTorch, old or
        new, or a .safetensors file.

    Raises:
      ValueError: naming the file, if it is damaged, of another kind, or names code.
    """
    path = Path(path)
    readers: dict[str, Callable] = {
        ".safetensors": _read_safetensors,
        ".pkl": _read_numpy,
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".bin": _read_torch,
    }
    if path.suffix not in readers:
        raise ValueError(f"{path}: expected one of {sorted(readers)}")
    try:
        with path.open("rb") as file:
            tensors = readers[path.suffix](file)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{path}: not a readable file of weights: {error}") from error
    if not tensors:
        raise ValueError(f"{path}: holds no tensors")
    return tensors


def _read_numpy(file: BinaryIO) -> dict[str, np.ndarray]:
    loaded = _unwrap(WeightsUnpickler(file).load())
    return {
        name: value.array
        for name, value in loaded.items()
        if isinstance(value, NumpyArray)
    }


def _read_torch(file: BinaryIO) -> dict[str, np.ndarray]:
    if zipfile.is_zipfile(file):
        loaded, storages = _read_torch_zip(file)
    else:
        file.seek(0)
        loaded, storages = _read_torch_legacy(file)
    return {
        name: _view(value, storages)
        for name, value in _unwrap(loaded).items()
        if isinstance(value, TorchTensor)
    }


def _read_torch_zip(file: BinaryIO):
    with zipfile.ZipFile(file) as archive:
        names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(f"expected one data.pkl, got {names}")
        folder = names[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("expected little-endian numbers, got big-endian ones")
        with archive.open(names[0]) as program:
            unpickler = WeightsUnpickler(program)
            loaded = unpickler.load()
        storages = {
            key: _numbers(archive.read(f"{folder}data/{key}"), storage.dtype)
            for key, storage in unpickler.storages.items()
        }
    return loaded, storages


def _read_torch_legacy(file: BinaryIO):
    """Pickles of magic number, version, system, weights, keys; then the storages."""
    magic = WeightsUnpickler(file).load()
    if magic != _LEGACY_MAGIC:
        raise ValueError("expected a zip archive or PyTorch's older format")
    for _ in ("version", "system"):
        WeightsUnpickler(file).load()
    unpickler = WeightsUnpickler(file)
    loaded = unpickler.load()
    storages = {}
    for key in WeightsUnpickler(file).load():
        storage = unpickler.storages[key]
        numel = int(np.frombuffer(file.read(8), "<i8")[0])
        if numel != storage.numel:
            raise ValueError(f"storage {key}: expected {storage.numel}, got {numel}")
        data = file.read(numel * _item_size(storage.dtype))
        storages[key] = _numbers(data, storage.dtype)
    return loaded, storages


def _read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    """Length of a JSON header, the header, then the numbers one after the other."""
    length = int(np.frombuffer(file.read(8), "<u8")[0])
    size = Path(file.name).stat().st_size - 8
    if length > size:
        raise ValueError(f"header: expected at most {size} bytes, got {length}")
    header = json.loads(file.read(length))
    data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        if not 0 <= start <= end <= len(data):
            raise ValueError(f"{name}: offsets {start}, {end} outside the file")
        numbers = _numbers(data[start:end], _SAFETENSORS[entry["dtype"]])
        tensors[name] = numbers.reshape(entry["shape"])
    return tensors


def _unwrap(loaded: object) -> Mapping:
    """The dict of tensors within the dicts that tools put around it."""
    if not isinstance(loaded, Mapping):
        raise ValueError(f"expected a dict of tensors, got {type(loaded).__name__}")
    for name in _WRAPPERS:
        if isinstance(loaded.get(name), Mapping):
            return _unwrap(loaded[name])
    # Models wrapped for several devices have a prefix.
    if loaded and all(str(name).startswith("module.") for name in loaded):
        return {name.removeprefix("module."): v for name, v in loaded.items()}
    return loaded


def _item_size(dtype: np.dtype | str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _numbers(data: bytes, dtype: np.dtype | str) -> np.ndarray:
    """Numbers of a storage; bfloat16 becomes float32, whose upper half it is."""
    if dtype == "bfloat16":
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32)
    return np.frombuffer(data, dtype)


def _view(tensor: TorchTensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array a tensor stands for.

    Raises:
      ValueError: if it reaches beyond its storage.
    """
    storage: Storage = tensor.storage
    numbers = storages[storage.key]
    shape, stride = tensor.shape, tensor.stride
    pairs = list(zip(shape, stride, strict=True))
    last = tensor.offset + sum((n - 1) * step for n, step in pairs)
    negative = tensor.offset < 0 or min((*shape, *stride, 0)) < 0
    if negative or (0 not in shape and last >= numbers.size):
        raise ValueError(f"tensor {shape} reaches beyond storage {storage.key}")
    if 0 in shape:
        return np.zeros(shape, numbers.dtype)
    strides = tuple(step * numbers.itemsize for step in stride)
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, strides)
    return np.ascontiguousarray(view).reshape(shape)

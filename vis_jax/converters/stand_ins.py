"""Harmless stand-ins for the classes in pickles of weights."""

import pickle
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np

# Torch storages and their NumPy types; bfloat16 has none and is widened.
STORAGES: dict[str, np.dtype | str] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": "bfloat16",
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}

# Objects beside the weights: settings, dates, training state. These packages are not
# imported, and their objects store nothing.
_INERT_PACKAGES = {
    "argparse",
    "datetime",
    "detectron2",
    "enum",
    "fvcore",
    "lightning",
    "lightning_fabric",
    "mmcv",
    "mmdet",
    "mmengine",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "timm",
    "types",
    "uuid",
    "yacs",
}
_INERT_NAMES = {
    ("_codecs", "lookup"),
    ("builtins", "complex"),
    ("builtins", "dict"),
    ("builtins", "getattr"),
    ("builtins", "list"),
    ("builtins", "object"),
    ("builtins", "set"),
    ("builtins", "slice"),
    ("collections", "Counter"),
    ("collections", "deque"),
    ("copy_reg", "_reconstructor"),
    ("copyreg", "_reconstructor"),
    ("__builtin__", "object"),
    ("__builtin__", "set"),
    ("torch", "device"),
    ("torch", "float16"),
    ("torch", "bfloat16"),
    ("torch", "float32"),
    ("torch", "float64"),
    ("torch", "int64"),
}
_MOST_AXES = 32


class Storage(NamedTuple):
    """A run of numbers elsewhere in the file, or in `numbers`."""

    key: str
    dtype: np.dtype | str
    numel: int
    numbers: np.ndarray | None = None


class TorchTensor(NamedTuple):
    """A view of a storage; offset and stride are in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TorchDtype(NamedTuple):
    """A storage class, used in place of a persistent id."""

    dtype: np.dtype | str


class WeightsDict(dict):
    """An OrderedDict; torch attaches metadata to it, which is ignored."""

    def __setstate__(self, state: object) -> None:
        pass


class InertObject:
    """An object that accepts everything and stores nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def add(self, value: object) -> None:
        """Accepts an item of a set."""


class NumpyDtype:
    """A NumPy dtype, restricted to numbers."""

    def __init__(
        self, code: object, align: object = False, copy: object = True
    ) -> None:
        code = text(code)
        if len(code) > 8:
            raise pickle.UnpicklingError("dtype: expected numbers")
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "fiub":
            raise pickle.UnpicklingError(f"dtype: expected numbers, got {code!r}")

    def __setstate__(self, state: Sequence) -> None:
        order = text(state[1])
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(cast(Any, order))


class NumpyArray:
    """A NumPy array as pickled: created empty, then filled."""

    def __init__(self, *_: object) -> None:
        self.array = np.zeros(0, np.float32)

    def __setstate__(self, state: Sequence) -> None:
        _, shape, dtype, fortran, data = state
        self.array = array(data, dtype, shape, "F" if fortran else "C")


def is_inert(module: str, name: str) -> bool:
    """Returns whether an object of this name is irrelevant to the weights."""
    return module.split(".")[0] in _INERT_PACKAGES or (module, name) in _INERT_NAMES


def raw(data: Any) -> bytes | bytearray:
    """Returns bytes, which Python 2 pickles store as text."""
    if not isinstance(data, bytes | bytearray | str):
        raise pickle.UnpicklingError("array: expected numbers, got objects")
    return data.encode("latin1") if isinstance(data, str) else data


def text(data: Any) -> str:
    """Returns text, which Python 3 may load as bytes."""
    if isinstance(data, bytes):
        return data.decode("latin1")
    if not isinstance(data, str):
        raise pickle.UnpicklingError(f"expected text, got {type(data).__name__}")
    return data


def as_shape(sizes: Any) -> tuple[int, ...]:
    """Returns a short tuple of non-negative integers."""
    plain = isinstance(sizes, list | tuple) and len(sizes) <= _MOST_AXES
    if not plain or not all(type(x) is int and 0 <= x < 2**48 for x in sizes):
        raise pickle.UnpicklingError("shape: expected a few whole numbers from 0")
    return tuple(sizes)


def array(data: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    """Returns an array with these numbers."""
    if not isinstance(dtype, NumpyDtype):
        raise pickle.UnpicklingError("array: expected numbers, got another dtype")
    numbers = np.frombuffer(raw(data), dtype.dtype)
    return numbers.reshape(as_shape(shape), order=order)


def frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> NumpyArray:
    """Stand-in for NumPy's pickle protocol 5 form."""
    if isinstance(data, str):
        raise pickle.UnpicklingError("array: expected bytes, got text")
    made = NumpyArray()
    made.array = array(data, dtype, shape, "F" if order == "F" else "C")
    return made


def scalar(dtype: Any, data: Any) -> np.generic:
    """Returns a scalar."""
    return array(data, dtype, [1], "C")[0]


def tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TorchTensor:
    """Stand-in for `torch._utils._rebuild_tensor`."""
    if not isinstance(storage, Storage) or type(offset) is not int:
        raise pickle.UnpicklingError("tensor: expected a storage and an offset")
    return TorchTensor(storage, offset, as_shape(shape), as_shape(stride))


def parameter(data: Any, *_: Any) -> Any:
    """Stand-in for `torch._utils._rebuild_parameter`."""
    return data

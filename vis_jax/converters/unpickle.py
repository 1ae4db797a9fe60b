"""Reading pickles of weights without running what they say.

A pickle is a program: loading one from a stranger with `pickle.load` or `torch.load`
runs any code it names. Here a fixed table gives harmless stand-ins for the few names
that files of weights contain, and every other name is an error. Neither NumPy's nor
PyTorch's own reconstruction takes part.
"""

import io
import pickle
from typing import IO, Literal, NamedTuple

import numpy as np

# Names of torch's storages and their NumPy types; bfloat16 has none and is widened.
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


class Storage(NamedTuple):
    """A run of numbers that lies elsewhere in the file."""

    key: str
    dtype: np.dtype | str
    numel: int


class TorchTensor(NamedTuple):
    """A view of a storage; offset and stride count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Dict(dict):
    """An OrderedDict; torch hangs metadata on it, which nothing here needs."""

    def __setstate__(self, state):
        pass


class _Dtype:
    """A NumPy dtype: numbers only."""

    def __init__(self, code, align=False, copy=True):
        self.dtype = np.dtype(_text(code))
        if self.dtype.kind not in "fiub":
            raise pickle.UnpicklingError(f"dtype: expected numbers, got {code!r}")

    def __setstate__(self, state):
        if _text(state[1]) in "<>":
            self.dtype = self.dtype.newbyteorder(_text(state[1]))


class NumpyArray:
    """A NumPy array as its pickle describes it: created empty, then filled."""

    def __init__(self, *_):
        self.array = np.zeros(0, np.float32)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.array = _array(data, dtype, shape, "F" if fortran else "C")


def _raw(data: bytes | bytearray | str) -> bytes | bytearray:
    """Bytes, which Python 2 pickles write as text."""
    if not isinstance(data, bytes | bytearray | str):
        raise pickle.UnpicklingError("array: expected numbers, got objects")
    return data.encode("latin1") if isinstance(data, str) else data


def _array(data, dtype: _Dtype, shape, order: Literal["C", "F"]) -> np.ndarray:
    return np.frombuffer(_raw(data), dtype.dtype).reshape(tuple(shape), order=order)


def _from_buffer(data, dtype: _Dtype, shape, order: Literal["C", "F"]) -> NumpyArray:
    """NumPy's form in protocol 5."""
    made = NumpyArray()
    made.array = _array(data, dtype, shape, order)
    return made


def _text(data: bytes | str) -> str:
    return data.decode("latin1") if isinstance(data, bytes) else data


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode` for the one encoding in which pickles hide bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding: expected latin1, got {encoding!r}")
    return text.encode("latin1")


def _scalar(dtype: _Dtype, data: bytes | str):
    return np.frombuffer(_raw(data), dtype.dtype)[0]


def _tensor(storage, offset, shape, stride, *_):
    return TorchTensor(storage, int(offset), tuple(shape), tuple(stride))


def _parameter(tensor, *_):
    return tensor


class _TorchDtype(NamedTuple):
    """A storage class, named where a persistent id stands."""

    dtype: np.dtype | str


_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _Dict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): NumpyArray,
    ("numpy", "dtype"): _Dtype,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = NumpyArray
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _from_buffer
for _name, _storage_dtype in STORAGES.items():
    _ALLOWED["torch", _name] = _TorchDtype(_storage_dtype)


class WeightsUnpickler(pickle.Unpickler):
    """Gives stand-ins for arrays and tensors, and refuses all other names.

    Attributes:
      storages: those that tensors refer to, by key.
    """

    def __init__(self, file: IO[bytes] | io.BufferedIOBase):
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        """The stand-in for a name.

        Raises:
          UnpicklingError: if the name is not in the table.
        """
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"{module}.{name} is not part of a file of weights; it is not loaded"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: tuple) -> Storage:
        """The storage that a persistent id names."""
        kind, dtype, key, _, numel = pid[:5]
        if _text(kind) != "storage" or not isinstance(dtype, _TorchDtype):
            raise pickle.UnpicklingError(f"expected a storage, got {pid!r}")
        storage = Storage(_text(key), dtype.dtype, int(numel))
        self.storages[storage.key] = storage
        return storage

"""Reads pickles of weights without executing them.

A pickle is a program: loading one from a stranger with `pickle.load` or `torch.load`
runs any code it names. Here a fixed table provides harmless stand-ins for the names
that weight files contain; every other name is an error. Neither NumPy's nor PyTorch's
own reconstruction is used.

A short pickle can also take unbounded time or memory. So instructions are counted, the
stand-ins' allocations are limited by the file size, and dict keys must be plain values,
as the hash of a nested tuple can take exponential time.
"""

import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

import numpy as np

from vis_jax.converters.stand_ins import (
    STORAGES,
    InertObject,
    NumpyArray,
    NumpyDtype,
    Storage,
    TorchDtype,
    WeightsDict,
    as_shape,
    frombuffer,
    is_inert,
    parameter,
    raw,
    scalar,
    tensor,
    text,
)

# A checkpoint of a thousand tensors with its optimiser takes about 100,000.
MOST_INSTRUCTIONS = 2_000_000
_SLACK = 1 << 16  # elements or bytes allowed for a file of any size
_PAIR_BYTES = 16  # approximate size of an OrderedDict entry
_LONGEST_KEY = 16  # items of a tuple used as a key
_PLAIN = (str, bytes, int, float, bool, type(None), np.generic, type, InertObject)

_TABLE: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): NumpyArray,
    ("numpy", "dtype"): NumpyDtype,
    ("torch", "Size"): as_shape,
    ("torch._utils", "_rebuild_tensor"): tensor,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_parameter"): parameter,
}
for _core in ("numpy.core", "numpy._core"):
    _TABLE[f"{_core}.multiarray", "_reconstruct"] = NumpyArray
    _TABLE[f"{_core}.multiarray", "scalar"] = scalar
    _TABLE[f"{_core}.numeric", "_frombuffer"] = frombuffer
for _name, _storage_dtype in STORAGES.items():
    _TABLE["torch", _name] = TorchDtype(_storage_dtype)


class BoundedFile:
    """Reads of a binary file that never request more than is left."""

    def __init__(self, file: IO[bytes] | io.BufferedIOBase) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def left(self) -> int:
        """Number of bytes after the position."""
        return self.size - self.file.tell()

    def read(self, count: int) -> bytes:
        """Returns the next bytes.

        Raises:
          UnpicklingError: fewer are left.
        """
        if not 0 <= count <= self.left():
            raise pickle.UnpicklingError(
                f"cut off or damaged: {count} bytes expected at byte"
                f" {self.file.tell()}, {self.left()} are left"
            )
        return self.file.read(count)

    def readline(self) -> bytes:
        """Returns the rest of the line."""
        return self.file.readline()


class WeightsUnpickler(pickle._Unpickler):
    """Unpickles arrays and tensors as stand-ins, and rejects all other names.

    Attributes:
      storages: storages of the tensors, by key.
    """

    def __init__(self, file: BoundedFile) -> None:
        super().__init__(file, encoding="latin1")  # type: ignore[arg-type]
        self.storages: dict[str, Storage] = {}
        self._budget = 2 * file.size + _SLACK
        self._instructions = 0
        self._own = {
            ("collections", "OrderedDict"): self._dict,
            ("collections", "defaultdict"): lambda *_: WeightsDict(),
            ("_codecs", "encode"): self._encode,
            ("torch.storage", "_load_from_bytes"): self._storage_of_bytes,
        }

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in for a name.

        Raises:
          UnpicklingError: the name is not in the table.
        """
        found = self._own.get((module, name)) or _TABLE.get((module, name))
        if found is None and is_inert(module, name):
            found = InertObject
        if found is None:
            raise pickle.UnpicklingError(
                f"{module[:80]}.{name[:80]} is not part of a file of weights; it is not"
                " loaded"
            )
        return found

    def persistent_load(self, pid: Any) -> Storage:
        """Returns the storage that a persistent id names."""
        if not isinstance(pid, tuple) or len(pid) < 5:
            raise pickle.UnpicklingError("expected a storage, got another id")
        kind, dtype, key, _, numel = pid[:5]
        known = isinstance(dtype, TorchDtype) and isinstance(key, str | bytes)
        if kind not in ("storage", b"storage") or not known:
            raise pickle.UnpicklingError("expected a storage, got another id")
        if not isinstance(numel, int) or numel < 0:
            raise pickle.UnpicklingError(f"storage {key!r:.80}: a negative size")
        storage = Storage(text(key), dtype.dtype, numel)
        self.storages[storage.key] = storage
        return storage

    def count(self) -> None:
        """Counts an instruction; raises UnpicklingError if there are too many."""
        self._instructions += 1
        if self._instructions > MOST_INSTRUCTIONS:
            raise pickle.UnpicklingError(
                f"more than {MOST_INSTRUCTIONS} instructions; files of weights have"
                " fewer"
            )

    def spend(self, size: int) -> None:
        """Deducts bytes or items from the file's budget; raises UnpicklingError."""
        self._budget -= size
        if self._budget < 0:
            raise pickle.UnpicklingError("its content is larger than the file itself")

    def _dict(self, *items: Any) -> WeightsDict:
        """Stand-in for `OrderedDict()`, also of pairs, as written by Python 2."""
        made = WeightsDict()
        pairs = items[0] if items else ()
        if not isinstance(pairs, list | tuple) or len(items) > 1:
            raise pickle.UnpicklingError("OrderedDict: expected pairs")
        self.spend(_PAIR_BYTES * len(pairs))
        for key, value in pairs:
            check_key(key)
            made[key] = value
        return made

    def _encode(self, content: Any, encoding: Any) -> bytes:
        """Stand-in for `_codecs.encode` with the one encoding used for bytes."""
        if encoding not in ("latin1", "latin-1") or not isinstance(content, str):
            raise pickle.UnpicklingError("encode: expected text in latin1")
        self.spend(len(content))
        return content.encode("latin1")

    def _storage_of_bytes(self, data: Any) -> Storage:
        """Returns a storage inside the pickle, as `pickle.dump` writes tensors.

        The bytes are a file in PyTorch's older format that contains only the storage.
        """
        from vis_jax.converters.torch_files import read_legacy

        content = raw(data)
        self.spend(len(content))
        try:
            storage, storages = read_legacy(BoundedFile(io.BytesIO(content)))
        except Exception as error:
            raise pickle.UnpicklingError(
                "the argument of torch.storage._load_from_bytes is not part of a file"
                f" of weights: {error!s:.200}"
            ) from error
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("expected a storage, got another object")
        return storage._replace(numbers=storages[storage.key])


def check_key(key: object) -> None:
    """Raises UnpicklingError unless a key is a plain value or a flat tuple of them."""
    items = key if type(key) is tuple else (key,)
    if len(items) > _LONGEST_KEY or not all(isinstance(x, _PLAIN) for x in items):
        raise pickle.UnpicklingError(
            f"a key of a dict: expected text or a number, got {type(key).__name__}"
        )


def _checked_keys(name: str, keys: Callable[[Any], Iterable]) -> Callable:
    handler = getattr(pickle._Unpickler, name)

    def run(self) -> None:
        for key in keys(self):
            check_key(key)
        handler(self)

    return run


def _build(self) -> None:
    """Sets state on stand-ins only: nothing else may get attributes."""
    state = self.stack.pop()
    made = self.stack[-1]
    if not isinstance(made, WeightsDict | NumpyDtype | NumpyArray | InertObject):
        raise pickle.UnpicklingError(f"{type(made).__name__}: expected no state")
    if isinstance(made, NumpyArray) and isinstance(state[-1], str):
        self.spend(len(state[-1]))  # text from Python 2 is copied
    made.__setstate__(state)


def _new(self, has_keywords: bool) -> None:
    """Runs `cls.__new__(cls, ..)`, needed only for stand-ins without content."""
    for _ in range(1 + has_keywords):
        self.stack.pop()
    if self.stack.pop() is not InertObject:
        raise pickle.UnpicklingError("expected an object of a known kind")
    self.stack.append(InertObject())


def _byte_array(self) -> None:
    (length,) = np.frombuffer(self.read(8), "<u8")
    self.append(bytearray(self.read(int(length))))


def _append(self) -> None:
    value = self.stack.pop()
    _extend(self, [value])


def _appends(self) -> None:
    _extend(self, self.pop_mark())


def _extend(self, values: list) -> None:
    if isinstance(self.stack[-1], list):
        self.stack[-1].extend(values)
    elif not isinstance(self.stack[-1], InertObject):
        raise pickle.UnpicklingError("expected a list")


def _refused(self) -> None:
    raise pickle.UnpicklingError("an instruction that files of weights do not have")


def _instructions() -> Mapping[int, Callable]:
    """Returns the handler of each instruction, with counting."""
    handlers: dict[int, Callable] = {
        **pickle._Unpickler.dispatch,
        pickle.DICT[0]: _checked_keys("load_dict", lambda self: self.stack[::2]),
        pickle.SETITEM[0]: _checked_keys("load_setitem", lambda x: x.stack[-2:-1]),
        pickle.SETITEMS[0]: _checked_keys("load_setitems", lambda x: x.stack[::2]),
        pickle.ADDITEMS[0]: _checked_keys("load_additems", lambda self: self.stack),
        pickle.FROZENSET[0]: _checked_keys("load_frozenset", lambda self: self.stack),
        pickle.BUILD[0]: _build,
        pickle.NEWOBJ[0]: lambda self: _new(self, False),
        pickle.NEWOBJ_EX[0]: lambda self: _new(self, True),
        pickle.BYTEARRAY8[0]: _byte_array,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _appends,
    }
    for code in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER):
        handlers[code[0]] = _refused

    def counted(handler: Callable) -> Callable:
        def run(self) -> None:
            self.count()
            handler(self)

        return run

    return {code: counted(handler) for code, handler in handlers.items()}


WeightsUnpickler.dispatch = dict(_instructions())

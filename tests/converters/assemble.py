"""Assembles pickles instruction by instruction, and PyTorch files from them."""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def name(module: str, attribute: str) -> bytes:
    """Returns the instructions for a class or function."""
    return f"c{module}\n{attribute}\n".encode()


def number(value: int) -> bytes:
    """Returns the instructions for an integer."""
    data = value.to_bytes(10, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def text(value: str) -> bytes:
    """Returns the instructions for a string."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def several(*items: bytes) -> bytes:
    """Returns the instructions for a tuple."""
    return b"(" + b"".join(items) + b"t"


def mapping(items: Mapping[str, bytes]) -> bytes:
    """Returns the instructions for a dict with string keys."""
    pairs = b"".join(text(key) + value for key, value in items.items())
    return b"}(" + pairs + b"u"


def call(function: bytes, *arguments: bytes) -> bytes:
    """Returns the instructions for the result of a function."""
    return function + several(*arguments) + b"R"


def storage(key: str, numel: int, dtype: str = "FloatStorage") -> bytes:
    """Returns the instructions for a persistent reference to a storage."""
    parts = text("storage"), name("torch", dtype), text(key), text("cpu")
    return several(*parts, number(numel)) + b"Q"


def tensor(run: bytes, shape: tuple, stride: tuple | None = None) -> bytes:
    """Returns the instructions for a tensor, row-major unless `stride` is given."""
    if stride is None:
        stride = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        run,
        number(0),
        several(*map(number, shape)),
        several(*map(number, stride)),
        b"\x89",
        call(name("collections", "OrderedDict")),
    )


def program(content: bytes) -> bytes:
    """Returns a complete pickle."""
    return b"\x80\x02" + content + b"."


def torch_zip(
    path: Path,
    content: bytes,
    storages: Mapping[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Writes a PyTorch zip file with this pickle and these storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program(content))
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def torch_pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Pickles tensors like `pickle.dump`: each storage is a file within the pickle."""
    items = {}
    for index, (key, array) in enumerate(arrays.items()):
        inner = io.BytesIO()
        inner.write(program(number(LEGACY_MAGIC)))
        inner.write(program(number(1001)))
        inner.write(program(mapping({})))
        inner.write(program(storage(str(index), array.size)))
        inner.write(program(b"](" + text(str(index)) + b"e"))
        inner.write(struct.pack("<q", array.size) + array.astype("<f4").tobytes())
        data = inner.getvalue()
        packed = b"B" + struct.pack("<I", len(data)) + data
        run = call(name("torch.storage", "_load_from_bytes"), packed)
        items[key] = tensor(run, array.shape)
    return mapping(items)

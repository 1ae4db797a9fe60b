"""Opens JSON files that are plain, gzipped or zipped.

The first bytes determine the type. Nothing is unpacked to disk, and the unpacked size
is limited, both absolutely and relative to the archive.
"""

import gzip
import io
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from vis_jax.formats.json_checks import FormatError, open_regular, reading, show

MAX_BYTES = 8 << 30  # unpacked JSON: ten times the largest result of a benchmark
MAX_RATIO = 100  # unpacked bytes of one packed byte; results have about 3
SMALL_BYTES = 64 << 20  # up to this size the ratio is not checked

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # with files, without
_GZIP = b"\x1f\x8b"
# NotImplementedError: a version, compression or encryption that `zipfile` lacks.
_DAMAGE = (
    *(zipfile.BadZipFile, NotImplementedError, gzip.BadGzipFile),
    *(zlib.error, lzma.LZMAError, EOFError),
)


def read_json(path: str | os.PathLike) -> object:
    """Reads a JSON file, plain or packed.

    Raises:
      FormatError: as `json_checks.reading` and `open_unpacked`.
    """
    with (
        reading(path),
        open_unpacked(path) as raw,
        io.TextIOWrapper(raw, encoding="utf-8") as file,
    ):
        return json.load(file)


@contextmanager
def open_unpacked(path: str | os.PathLike) -> Iterator[io.BufferedReader]:
    """Opens a JSON file, plain, gzipped or alone in a zip.

    Raises:
      FormatError: a pipe or a device; or an archive is damaged or encrypted, holds no
        or several JSON files or one outside its folder, or unpacks to too much.
      OSError: the file cannot be opened.
    """
    with open_regular(path) as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(_GZIP):
            opened, kind = _open_gzip(path, file), "gzip"
        elif start.startswith(_ZIP):
            opened, kind = _open_zip(path, file), "zip"
        else:
            yield file
            return
        try:
            with opened as content:
                yield content
        except _DAMAGE as error:
            raise FormatError(
                f"{path}: expected a sound {kind} file, got: {show(error)}"
            ) from error


@contextmanager
def _open_gzip(
    path: str | os.PathLike, file: io.BufferedReader
) -> Iterator[io.BufferedReader]:
    limit = most_bytes(os.fstat(file.fileno()).st_size)
    with gzip.GzipFile(fileobj=file) as content:
        yield _bounded(path, content.read, limit)


@contextmanager
def _open_zip(
    path: str | os.PathLike, file: io.BufferedReader
) -> Iterator[io.BufferedReader]:
    with zipfile.ZipFile(file) as archive:
        member = _only_json(path, archive)
        if member.flag_bits & 1:
            raise FormatError(f"{path}: expected no password, got an encrypted file")
        # The zip directory may declare more than exists.
        packed = min(member.compress_size, os.fstat(file.fileno()).st_size)
        limit = most_bytes(packed)
        if member.file_size > limit:
            raise FormatError(_too_much(path, limit))
        with archive.open(member) as content:
            yield _bounded(path, content.read, limit)


def _only_json(path: str | os.PathLike, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Returns the member to read, skipping folders and macOS metadata."""
    members = [
        member
        for member in archive.infolist()
        if member.filename.lower().endswith(".json")
        and not member.filename.startswith("__MACOSX/")
    ]
    if len(members) != 1:
        names = show([member.filename for member in members])
        raise FormatError(f"{path}: expected one JSON file in the zip, got {names}")
    name = PurePosixPath(members[0].filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        raise FormatError(
            f"{path}: expected a name inside the zip, got {members[0].filename!r}"
        )
    return members[0]


def most_bytes(packed: int) -> int:
    """Returns the maximum unpacked size of a file of `packed` bytes."""
    return min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * packed))


def _too_much(path: str | os.PathLike, limit: int) -> str:
    return f"{path}: expected at most {limit} bytes unpacked, got more"


def _bounded(
    path: str | os.PathLike, read: Callable[[int], bytes], limit: int
) -> io.BufferedReader:
    return io.BufferedReader(_Bounded(path, read, limit), 1 << 20)


class _Bounded(io.RawIOBase):
    """Limits the bytes read, as headers may be wrong."""

    def __init__(
        self, path: str | os.PathLike, read: Callable[[int], bytes], limit: int
    ) -> None:
        self._path = path
        self._read = read
        self._left = self._limit = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._read(len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise FormatError(_too_much(self._path, self._limit))
        buffer[: len(block)] = block
        return len(block)

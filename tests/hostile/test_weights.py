"""Files of weights made to hang, to fill the memory or to change the program."""

import io
import json
import os
import struct
import sys
import time
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

from tests.converters.assemble import (
    call,
    mapping,
    name,
    number,
    program,
    several,
    storage,
    tensor,
    text,
    torch_zip,
)
from vis_jax.converters import unpickle
from vis_jax.converters.files import MOST_BYTES, read_weights
from vis_jax.converters.unpickle import BoundedFile, WeightsUnpickler

# The type checks of the tests take most of the time.
SECONDS, BYTES = 5.0, 64 << 20


@contextmanager
def within_bounds():
    """Checks that the enclosed code takes little time and memory."""
    tracemalloc.start()
    begin = time.process_time()
    try:
        yield
        assert time.process_time() - begin < SECONDS
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()


def refused(path, match):
    with within_bounds(), pytest.raises(ValueError, match=match) as error:
        read_weights(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 1000


def nested(depth=60):
    """(x, x) of (x, x) of ..: each level twice as large to whoever walks through it."""
    levels = (b"q%c" % i + b"h%c" % i + b"\x86" for i in range(depth))
    return b")" + b"".join(levels)


ENDLESS = {
    "key of a dict": b"}" + nested() + number(1) + b"s",
    "keys of a dict": b"}(" + nested() + number(1) + b"u",
    "dict by mark": b"(" + nested() + number(1) + b"d",
    "item of a set": b"\x8f(" + nested() + b"\x90",
    "frozen set": b"(" + nested() + b"\x91",
    "pairs of an OrderedDict": call(
        name("collections", "OrderedDict"), b"](" + several(nested(), b"N") + b"e"
    ),
    "persistent id": nested() + b"Q",
    "key of a storage": several(
        text("storage"),
        name("torch", "FloatStorage"),
        nested(),
        text("cpu"),
        number(1),
    )
    + b"Q",
    "kind of a storage": several(nested(), *[b"N"] * 4) + b"Q",
    "code of a dtype": call(name("numpy", "dtype"), nested()),
    "shape": call(name("torch", "Size"), nested()),
    "shape of an array": call(
        name("numpy._core.multiarray", "_reconstruct"), b"N", b"N", b"N"
    )
    + several(
        number(1),
        nested(),
        call(name("numpy", "dtype"), text("f4")),
        b"\x89",
        b"B\0\0\0\0",
    )
    + b"b",
    "encoding": call(name("_codecs", "encode"), text("x"), nested()),
    "text to encode": call(name("_codecs", "encode"), nested(), text("latin1")),
    "global": nested() + nested() + b"\x93",
    "bytes of a storage": call(name("torch.storage", "_load_from_bytes"), nested()),
    "weights": nested(),
}


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
@pytest.mark.parametrize("what", ENDLESS)
def test_a_short_pickle_does_not_run_for_ever(tmp_path, what, suffix):
    content = program(ENDLESS[what])
    assert len(content) < 800
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(content)
    refused(path, "not a readable file of weights")


MEMOIZED = text("x" * 60_000) + b"q\x01"
PAIRS = b"](" + several(text("a"), b"N") * 2000 + b"eq\x01"
GROWING = {
    "text encoded again and again": MEMOIZED
    + b"0]("
    + call(name("_codecs", "encode"), b"h\x01", text("latin1")) * 5000
    + b"e",
    "pairs of a dict copied again and again": PAIRS
    + b"0]("
    + call(name("collections", "OrderedDict"), b"h\x01") * 500
    + b"e",
    "a shape of many axes": call(name("torch", "Size"), several(*[b"K\x01"] * 500)),
    "memo": b"Nr\xff\xff\xff\x7f",
    "bytes": b"\x8e" + struct.pack("<Q", 1 << 40),
    "bytes of text": b"\x8d" + struct.pack("<Q", 1 << 40),
    "byte array": b"\x96" + struct.pack("<Q", 1 << 40),
    "frame": b"\x95" + struct.pack("<Q", 1 << 40),
    "nesting": b"]" * 2000 + b"a" * 1999,
}


@pytest.mark.parametrize("what", GROWING)
def test_a_pickle_does_not_grow_beyond_its_file(tmp_path, what):
    path = tmp_path / "model.pkl"
    path.write_bytes(program(GROWING[what]))
    refused(path, "not a readable file of weights|no tensors")


def test_instructions_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle, "MOST_INSTRUCTIONS", 1000)
    path = tmp_path / "model.pkl"
    path.write_bytes(program(b"}0" * 600 + b"}"))
    refused(path, "more than 1000 instructions")


CHANGES = {
    "class": name("collections", "OrderedDict"),
    "function": name("torch._utils", "_rebuild_tensor_v2"),
    "builtin": name("torch", "Size"),
    "stand-in": name("numpy", "ndarray"),
    "inert": name("argparse", "Namespace"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_state_is_not_set_on_the_stand_ins_themselves(tmp_path, what):
    slots = mapping({"__defaults__": b")", "__doc__": text("changed")})
    path = tmp_path / "model.pkl"
    path.write_bytes(program(CHANGES[what] + several(b"N", slots) + b"b"))
    refused(path, "expected no state")


@pytest.mark.parametrize(
    "made",
    [
        name("collections", "OrderedDict") + b")\x81",
        name("numpy", "dtype") + b")\x81",
        text("x") + b")\x81",
        number(1) + b")}\x92",
        b"\x82\x01",
        b"\x97",
    ],
)
def test_objects_are_made_by_the_stand_ins_alone(tmp_path, made):
    path = tmp_path / "model.pkl"
    path.write_bytes(program(made))
    refused(path, "not a readable file of weights")


def test_metadata_of_other_packages_is_neither_imported_nor_kept():
    beside = {
        "args": call(name("argparse", "Namespace")) + mapping({"lr": b"N"}) + b"b",
        "when": call(name("datetime", "datetime"), text("\x07\xe6")),
        "where": call(name("pathlib", "PosixPath"), text("/etc")),
        "config": name("mmcv.utils.config", "ConfigDict")
        + b")\x81("
        + text("a")
        + b"Nu",
    }
    loaded = WeightsUnpickler(BoundedFile(io.BytesIO(program(mapping(beside))))).load()
    assert {type(value).__name__ for value in loaded.values()} == {"InertObject"}
    assert "mmcv" not in sys.modules


def test_a_tensor_does_not_repeat_its_storage(tmp_path):
    wide = tensor(storage("0", 1), (30_000, 30_000), (0, 0))
    path = torch_zip(tmp_path / "model.pth", mapping({"w": wide}), {"0": b"\0" * 4})
    refused(path, r"\(30000, 30000\) repeats numbers of storage 0")
    overlapping = tensor(storage("0", 1000), (500, 501), (1, 1))
    content = mapping({"w": overlapping})
    torch_zip(path, content, {"0": b"\0" * 4000})
    with within_bounds():
        assert read_weights(path)["w"].base is not None  # a view of 4 kB


def test_an_archive_does_not_unpack_to_more_than_it_is(tmp_path):
    path = tmp_path / "model.pth"
    content = mapping({"w": tensor(storage("0", 1 << 22), (1 << 22,))})
    torch_zip(path, content, {"0": bytes(1 << 24)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 50_000
    refused(path, "got a compressed one of")


def test_an_entry_has_the_size_of_its_tensor(tmp_path):
    content = mapping({"w": tensor(storage("0", 2), (2,))})
    path = tmp_path / "model.pth"
    for data in (b"", b"\0" * 4, b"\0" * 1000):
        torch_zip(path, content, {"0": data})
        refused(path, f"storage 0: expected 8 bytes, got {len(data)} bytes")
    torch_zip(path, content, {})
    refused(path, "storage 0: expected 8 bytes, got no such entry")


def test_entries_of_an_archive_do_not_share_bytes(tmp_path):
    path = torch_zip(tmp_path / "model.pth", mapping({}), {"0": b"x" * 5000})
    with zipfile.ZipFile(path, "a") as archive:
        entry = archive.getinfo("archive/data/0")
        for index in range(1, 50):
            twin = zipfile.ZipInfo(f"archive/data/{index}")
            for field in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(twin, field, getattr(entry, field))
            archive.filelist.append(twin)
        archive._didModify = True
    refused(path, "entries of .* bytes in an archive of")


def safetensors(path, header, data=b""):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + data)
    return path


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({f"w{i}": entry([64], 0, 256) for i in range(3)}, "shares its numbers"),
        ({"w": entry([1 << 40], 0, 256)}, "256 bytes for F32"),
        ({"w": entry([32], 0, 128)}, "expected 128 bytes of tensors, got 256"),
        ({"w": entry([32], 128, 256)}, "w: expected to start at byte 0, got 128"),
        (
            {"v": entry([32], 0, 128), "w": entry([32], 0, 128)},
            "w: expected to start at byte 128, got 0",
        ),
        (b'{"w": {}, "w": {}}', "header: expected each name once"),
        ({"w": entry([-1], 0, 256)}, "w: shape: expected whole numbers from 0"),
        ({"w": entry([1] * 100, 0, 4)}, "w: shape"),
        ({"w": entry([64.0], 0, 256)}, "w: shape"),
        ({"w": entry([64], 0, 512)}, "w: offsets 0, 512 outside the file"),
        ({"w": entry([64], -256, 0)}, "w: offsets: expected whole numbers"),
        ({"w": entry([64], 0, 256, "F8_E4M3")}, "w: dtype: expected one of"),
        ({"w": entry([64], 0, 256, ["F32"])}, "w: dtype: expected one of"),
        ({"w": {}}, "w: dtype"),
        ({"w": 1}, "w: expected an entry, got int"),
        ([1], "header: expected entries by name"),
        (b"[" * 100_000, "not a readable file of weights"),
        (b"\xff\xfe", "not a readable file of weights"),
        ({}, "holds no tensors"),
    ],
)
def test_a_header_of_safetensors_is_held_against_the_file(tmp_path, header, match):
    refused(safetensors(tmp_path / "model.safetensors", header, bytes(256)), match)


def test_a_long_header_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refused(path, "header: expected at most 2 bytes")


@pytest.mark.parametrize("suffix", ["pkl", "pth", "safetensors"])
def test_only_regular_files_are_opened(tmp_path, suffix):
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    refused(pipe, "expected a regular file")
    device = tmp_path / f"device.{suffix}"
    device.symlink_to("/dev/zero")
    refused(device, "expected a regular file")


@pytest.mark.parametrize("suffix", ["pkl", "pth", "safetensors"])
def test_a_file_of_any_size_is_not_read(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    path.touch()
    os.truncate(path, MOST_BYTES + 1)  # takes no space on the disk
    refused(path, "expected at most .* bytes")
    os.truncate(path, 1 << 30)
    refused(path, "not a readable file of weights")


@pytest.mark.parametrize("seed", range(20))
def test_damage_anywhere_gives_one_short_error_or_the_same_names(tmp_path, seed):
    """A byte that is changed may change numbers, but never more than one tensor."""
    rng = np.random.default_rng(seed)
    content = mapping({"a": tensor(storage("0", 6), (2, 3)), "b": number(7)})
    path = torch_zip(tmp_path / "model.pth", content, {"0": bytes(24)})
    whole = bytearray(path.read_bytes())
    for _ in range(20):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(changed)
        with within_bounds():
            try:
                assert len(read_weights(path)) == 1
            except ValueError as error:
                assert str(error).startswith(str(path))
                assert len(str(error)) < 1000

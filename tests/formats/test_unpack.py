"""Packed files read like the originals, or fail with one line."""

import gzip
import json
import struct
import zipfile

import pytest

from tests.metrics.scenes import prediction, rows, track, truth_file
from vis_jax.formats import unpack
from vis_jax.formats.json_checks import FormatError
from vis_jax.formats.json_list import read_list, read_list_or_field
from vis_jax.formats.pack import pack
from vis_jax.formats.results_json import load_results, load_truth

MASKS = rows(8, 8, None, 8)
RESULTS = [prediction(0.9, MASKS), prediction(0.5, MASKS[::-1])]


def write_zip(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def found(path):
    return list(read_list_or_field(path, "results"))


def test_every_packing_reads_as_the_plain_file(tmp_path):
    truth = tmp_path / "truth.json.gz"
    truth.write_bytes(gzip.compress(json.dumps(truth_file([track(1, MASKS)])).encode()))
    text = json.dumps(RESULTS)
    plain, wrapped = tmp_path / "plain.json", tmp_path / "wrapped.json"
    plain.write_text(text)
    wrapped.write_text(json.dumps({"info": {"results": 1}, "results": RESULTS, "n": 2}))
    packed = tmp_path / "packed"  # a file says what it is, not its name
    packed.write_bytes(gzip.compress(wrapped.read_bytes()))
    pack(plain, truth, tmp_path / "server.zip")
    members = {"__MACOSX/._a.json": "x", "read.me": "x", "a/results.JSON": text}
    write_zip(tmp_path / "own.zip", **members)
    known = load_truth(truth)
    paths = (wrapped, packed, tmp_path / "server.zip", tmp_path / "own.zip")
    for path in (plain, *paths):
        assert found(path) == RESULTS
        assert [x.score for x in load_results(path, known).tracks] == [0.9, 0.5]
    pack(tmp_path / "own.zip", truth, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == paths[2].read_bytes()
    with pytest.raises(FormatError, match="expected a list, got {'info'"):
        pack(wrapped, truth, tmp_path / "no.zip")  # servers take lists only


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "or an object with a list 'results', got an object with \\[\\]"),
        ('{"a": [1]}', "with a list 'results', got an object with \\['a'\\]"),
        ('{"results": {"a": 1}}', "results: expected a list, got {'a': 1}"),
        ('{"results": [], "results": []}', "results: expected one, got two"),
        ('{"results": [1],}', "property name enclosed in double quotes: char 16"),
        ('{"results": [1] "a": 1}', "Expecting ',': char 16"),
        ('{"results": [1]', "Expecting ','"),
        ('{"results": [1]} 2', "nothing after the list"),
        ("3", "expected a list, or an object with a list 'results', got 3"),
    ],
)
def test_objects_that_hold_no_results(text, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=f"^{path}: .*{message}"):
        found(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "expected one JSON file in the zip, got \\[\\]"),
        ({"a.txt": "[]"}, "one JSON file in the zip, got \\[\\]"),
        ({"a.json": "[]", "b.json": "[]"}, "got \\['a.json', 'b.json'\\]"),
        ({"../a.json": "[]"}, "a name inside the zip, got '../a.json'"),
        ({"/a.json": "[]"}, "a name inside the zip, got '/a.json'"),
        ({"..\\a.json": "[]"}, "a name inside the zip"),
        ({"a.json": "[1"}, "expected JSON, got: Expecting ',' or ']'"),
    ],
)
def test_archives_without_one_sound_file(members, message, tmp_path):
    path = write_zip(tmp_path / "x.zip", **members)
    with pytest.raises(FormatError, match=message):
        found(path)


def test_damage_is_named(tmp_path):
    text = json.dumps(RESULTS * 50)
    sound = write_zip(tmp_path / "x.zip", **{"a.json": text}).read_bytes()
    packed = gzip.compress(text.encode())
    start = sound.index(b"a.json") + 6
    broken = sound[:start] + bytes(30) + sound[start + 30 :]
    secret = bytearray(sound)
    secret[sound.index(b"PK\1\2") + 8] |= 1  # the flag in the directory
    newer = bytearray(sound)
    newer[sound.index(b"PK\1\2") + 6] = 200  # a version that is not known yet
    cases = {
        "zip": (sound[:-30], broken, b"PK\3\4", bytes(newer)),
        "gzip": (packed[:-9], packed[:20] + bytes(9) + packed[29:]),
        "no password": (bytes(secret),),
    }
    for word, files in cases.items():
        for content in files:
            (tmp_path / "x").write_bytes(content)
            with pytest.raises(FormatError, match=f"x: expected .*{word}.*, got"):
                found(tmp_path / "x")


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "SMALL_BYTES", 1000)
    text = '["' + "x" * 1_000_000 + '"]'
    bomb = write_zip(tmp_path / "x.zip", **{"a.json": text})
    message = r"expected at most \d+ bytes unpacked, got more"
    with pytest.raises(FormatError, match=message):
        found(bomb)
    (tmp_path / "x.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(FormatError, match=message):
        list(read_list(tmp_path / "x.gz"))
    # A directory that says 10 bytes: no more than that is read; one that says that they
    # were packed in many: no more is allowed for it.
    content = bytearray(bomb.read_bytes())
    directory = content.index(b"PK\1\2")
    struct.pack_into("<I", content, directory + 20, 1 << 30)
    bomb.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        found(bomb)
    struct.pack_into("<I", content, directory + 24, 10)
    bomb.write_bytes(content)
    with pytest.raises(FormatError, match="expected (a sound zip|JSON)"):
        found(bomb)
    assert unpack.most_bytes(1 << 40) == unpack.MAX_BYTES

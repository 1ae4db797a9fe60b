"""A list read item by item is the list that the whole file holds, or one error."""

import json
import tracemalloc

import pytest

from vis_jax.formats import json_list
from vis_jax.formats.json_checks import FormatError

ITEMS = [{"a": [1.5, None, {"b": 'x"]},\\ \u00e9'}]}, [], 1234, -5e-7, True, "", {}]
TEXT = json.dumps(ITEMS, ensure_ascii=False)


@pytest.fixture(params=[1, 3, 4, 1 << 20])
def block(request, monkeypatch):
    monkeypatch.setattr(json_list, "_BLOCK", request.param)


@pytest.mark.parametrize("items", [ITEMS, [], [[]], [12345], [ITEMS] * 3])
@pytest.mark.parametrize("indent", [None, 1])
def test_it_is_the_list_in_the_file(items, indent, block, tmp_path):
    path = tmp_path / "list.json"
    path.write_text(f" \n{json.dumps(items, indent=indent)}\n ")
    assert list(json_list.read_list(path)) == items


@pytest.mark.parametrize("size", range(1, 12))
def test_numbers_at_the_edge_of_a_block_are_whole(size, monkeypatch, tmp_path):
    monkeypatch.setattr(json_list, "_BLOCK", size)
    path = tmp_path / "list.json"
    for offset in range(12):
        path.write_text("[" + " " * offset + "1.5e-30,-5E+7, 12]")
        assert list(json_list.read_list(path)) == [1.5e-30, -5e7, 12]


def test_every_cut_is_found(block, tmp_path):
    path = tmp_path / "list.json"
    for cut in range(len(TEXT)):
        path.write_text(TEXT[:cut])
        with pytest.raises(FormatError, match="list.json: expected JSON, got: "):
            list(json_list.read_list(path))


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1 2]", "Expecting ',' or ']': char 3"),
        ("[1,]", "Expecting value: char 3"),
        ("[1],", "Expecting nothing after the list: char 3"),
        ("[{'a': 1}]", "in double quotes: char 2"),
        ("\ufeff[]", "a byte order mark"),
        ('{"a": 1}', "top level: expected a list, got {'a': 1}"),
        ("[" * 100_000, "nesting too deep"),
    ],
)
def test_what_is_wrong_and_where(text, message, block, tmp_path):
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(FormatError) as error:
        list(json_list.read_list(path))
    assert message in str(error.value)


def test_a_large_file_is_never_whole_in_memory(tmp_path):
    path = tmp_path / "list.json"
    item = {"text": "x" * 10_000}
    path.write_text(json.dumps([item] * 2_000))
    tracemalloc.start()
    try:
        assert all(found == item for found in json_list.read_list(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 20e6 > 2 * peak


def test_an_early_mistake_is_found_early(tmp_path):
    path = tmp_path / "list.json"
    path.write_text("[{'a': 1}," + json.dumps(["x" * 10_000] * 2_000))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="double quotes: char 2"):
            list(json_list.read_list(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5e6

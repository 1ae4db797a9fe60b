"""msgspec reads what `json` reads, and leaves to it whatever is odd."""

import json

import numpy as np
import pytest

from tests.metrics.scenes import prediction, random_files, rows, track, truth_file
from vis_jax.formats import fast_entries
from vis_jax.formats.fast_entries import open_list
from vis_jax.formats.json_checks import FormatError
from vis_jax.formats.results_json import load_results
from vis_jax.formats.truth_json import parse_truth

MASKS = rows(8, 8, None, 8)
TRUTH = parse_truth(truth_file([track(1, MASKS)], lengths=(4, 4)))


def both(path, truth, monkeypatch):
    """Reads with msgspec and with json alone: tracks or the error."""
    found = []
    for name in ("msgspec", "json"):
        with monkeypatch.context() as patch:
            if name == "json":
                patch.setattr(fast_entries, "open_list", lambda _: None)
            try:
                results = load_results(path, truth)
            except FormatError as error:
                found.append(str(error))
                continue
        rows = [(*x[:4], x.segmentations, x.areas.tolist(), x[6]) for x in results[1]]
        found.append((rows, results.tolerated))
    return found


def sound(path, truth):
    """Whether msgspec reads every entry."""
    listed = open_list(path)
    text = listed and listed.piece(listed.start, listed.stop)
    return bool(text) and fast_entries._sound(text, 0, truth) is not None


@pytest.mark.parametrize("piece", [1, 1 << 21])
def test_random_files_read_alike(piece, tmp_path, monkeypatch):
    monkeypatch.setattr(fast_entries, "_PIECE", piece)
    path, count = tmp_path / "results.json", 0
    for seed in range(30):
        content, entries = random_files(seed, odd=seed % 2 == 1)
        truth = parse_truth(content)
        path.write_text(json.dumps(entries, indent=seed % 3 or None))
        fast, slow = both(path, truth, monkeypatch)
        assert fast == slow, seed
        count += sound(path, truth)
    assert count > 10


def escaped(text):
    return text.replace("\\\\", "\\u005c")


ENTRY = json.dumps(prediction(0.5, MASKS))
ODD = {
    "score": ENTRY.replace("0.5", "true"),
    "large": ENTRY.replace("0.5", "1" + "0" * 18),
    "id": ENTRY.replace('"video_id": 1', '"video_id": 1.0'),
    "size": ENTRY.replace("[4, 10]", "[4, 10.0]", 1),
    "length": ENTRY.replace(", null", ""),
    "absent": ENTRY.replace("null", "[]"),
    "twice": ENTRY.replace('"video_id": 1', '"video_id": 2, "video_id": 1'),
    "other": ENTRY.replace("{", '{"bbox": [NaN, "\\ud83d", 1e999], ', 1),
    "utf-8": ENTRY.replace("{", '{"name": "\u00e9", ', 1),
    "escape": escaped(ENTRY.replace('"counts": "', '"counts": "\\u0030', 1)),
    "list": ENTRY.replace('"counts": "', '"counts": ["a"], "b": "', 1),
    "quote": ENTRY.replace('"counts": "', '"counts": "\\"', 1),
    "control": ENTRY.replace('"counts": "', '"counts": "\x01', 1),
    "runs": ENTRY.replace('"counts": "', '"counts": "9', 1),
    "video": ENTRY.replace('"video_id": 1', '"video_id": 7'),
    "cut": ENTRY[:-3],
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_entry_is_left_to_json(name, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text(f"[{ENTRY},\n{ODD[name]} , {ENTRY}]", encoding="utf-8")
    for piece in (1, 1 << 21):
        monkeypatch.setattr(fast_entries, "_PIECE", piece)
        fast, slow = both(path, TRUTH, monkeypatch)
        assert fast == slow
    assert ODD[name] != ENTRY


def test_the_first_bad_entry_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(f"[{ENTRY}, {ODD['runs']}, {ODD['video']}]")
    with pytest.raises(FormatError, match="entry 1: segmentations.0.: counts"):
        load_results(path, TRUTH)


def test_backslashes_in_run_lengths_are_single(tmp_path, monkeypatch):
    size = (64, 300)
    mask = np.zeros(size, bool)
    mask[44:60, 0] = True  # a run of 44 begins with a backslash
    entry = prediction(0.5, [mask])
    assert any("\\" in m["counts"] for m in entry["segmentations"])
    truth = parse_truth(truth_file([], lengths=(1,), size=size))
    path = tmp_path / "results.json"
    path.write_text(json.dumps([entry]))
    fast, slow = both(path, truth, monkeypatch)
    assert fast == slow and fast[0][0][5] == [16]
    assert sound(path, truth)


NESTED = f'{ENTRY[:-1]}, "more": [{ENTRY}, {ENTRY}]}}'
QUOTED = f'{ENTRY[:-1]}, "more": {json.dumps(f"{ENTRY}, {ENTRY}")}}}'
BRACKETS = ENTRY.replace("}]", "}], [", 1)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{}", "[", "3", "[]", "[1,]", "[" * 100_000, f"[{ENTRY},]"),
        *(f"[{ENTRY},,{ENTRY}]", f"[{ENTRY}, {ENTRY}]]", f"[{ENTRY} {ENTRY}]"),
        *(f"[{NESTED}, {NESTED}]", f"[{QUOTED}, {QUOTED}]", f"[{ENTRY}],[{ENTRY}]"),
        *(
            f"[{BRACKETS}, {ENTRY}]",
            f"[{ENTRY}], {ENTRY}]",
            f'{{"results": [{ENTRY}]}}',
        ),
    ],
)
def test_pieces_are_cut_between_entries_alone(text, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text(text)
    monkeypatch.setattr(fast_entries, "_PIECE", 1)
    fast, slow = both(path, TRUTH, monkeypatch)
    assert fast == slow


def test_parts_end_where_the_video_changes(tmp_path):
    path = tmp_path / "results.json"
    videos = [3, 3, 1, 1, 1, 2]
    entries = [prediction(0.5, MASKS, video=video) for video in videos]
    for indent in (None, 2):
        path.write_text(json.dumps(entries, indent=indent))
        listed, text = open_list(path), path.read_text()
        changes = [
            text.count('"video_id"', 0, listed.cut_between_videos(at))
            for at in range(listed.stop)
        ]
        assert sorted(set(changes)) == [2, 5, 6]
        assert changes == sorted(changes)

"""Every defect of a file gives one line that names the file and the place."""

import copy
import json
import math

import pytest

from tests.metrics.scenes import prediction, rows, track, truth_file
from vis_jax.formats.json_checks import FormatError
from vis_jax.formats.results_json import load_results, load_truth, write_results

MASKS = rows(8, 8, None, 8)
TRUTH = truth_file([track(1, MASKS), track(2, MASKS, category=2)], lengths=(4, 4))
RESULTS = [prediction(0.5, MASKS), prediction(0.4, MASKS, video=2)]
DELETE = object()
DEEP = "[" * 100_000
HUGE = 10**30
NOT_IDS = [None, math.nan, math.inf, HUGE, [], {}]
BOMB = "".join(["o" * 6, "1"]) * 3  # runs of billions of pixels

# Path into the file, value put there (DELETE: key removed), part of the message.
TRUTH_DEFECTS = [
    *[(path, DELETE, path[-1]) for path in (["videos"], ["categories"])],
    (["annotations"], DELETE, "no ground truth"),
    (["annotations"], None, "no ground truth"),
    (["annotations"], {}, "annotations: expected a list"),
    (["annotations", 0], 7, r"annotations\[0\]: expected an object"),
    (["videos", 1], None, r"videos\[1\]: expected an object"),
    (["videos", 0, "id"], DELETE, "key missing"),
    (["videos", 0, "height"], 0, "height, width"),
    (["videos", 0, "width"], 10**9, "height, width"),
    *[(["videos", 0, "id"], bad, "id: expected an int") for bad in NOT_IDS],
    *[(["categories", 0, "id"], bad, "id: expected an int") for bad in NOT_IDS],
    (["videos", 0, "id"], "1", "videos: id: expected only numbers or only text"),
    (["categories", 0, "id"], "1", "categories: id: expected only numbers"),
    *[
        (["annotations", 0, "id"], bad, "id: expected an integer")
        for bad in [*NOT_IDS, "1"]
    ],
    *[
        (["annotations", 0, key], DELETE, f"{key}: expected a value")
        for key in ("id", "video_id", "category_id", "iscrowd", "areas")
    ],
    (["annotations", 0, "segmentations"], DELETE, "segmentations: expected a value"),
    (["annotations", 0, "segmentations"], "none", "segmentations: expected a list"),
    (["annotations", 1, "iscrowd"], "0", "iscrowd"),
    (["annotations", 1, "areas", 0], "8", r"areas\[0\]: expected pixels or null"),
    (["annotations", 1, "areas", 0], math.inf, r"areas\[0\]"),
    (["annotations", 1, "areas", 3], math.nan, r"areas\[3\]"),
    *[
        (["annotations", 1, key], bad, rf"{key}: expected an id")
        for key in ("video_id", "category_id")
        for bad in (None, [], {})
    ],
    (["annotations", 0, "segmentations", 0], 5, r"segmentations\[0\]: expected an obj"),
    (["annotations", 0, "segmentations", 0], [[1, 2, 3]], "polygons"),
    (["annotations", 0, "segmentations", 0], [[1, 2, 3, 4]], "polygons"),
    (["annotations", 0, "segmentations", 0], [[1, 2, 3, 4, 5, "6"]], "coordinates"),
    (["annotations", 0, "segmentations", 0], [[1, 2, 3, 4, 5, 1e9]], "coordinates"),
    (
        ["annotations", 0, "segmentations", 0],
        [[1, 2, 3, 4, 5, math.nan]],
        "coordinates",
    ),
    (["annotations", 0, "segmentations", 0, "size"], DELETE, "size"),
    (["annotations", 0, "segmentations", 0, "size"], [4], "size"),
    (["annotations", 0, "segmentations", 0, "size"], [0, 10], "size"),
    (["annotations", 0, "segmentations", 0, "counts"], DELETE, "counts"),
    (["annotations", 0, "segmentations", 0, "counts"], [10, 20], "add up to 40"),
    (["annotations", 0, "segmentations", 0, "counts"], [10, -20, 50], "integers 0"),
    (["annotations", 0, "segmentations", 0, "counts"], [10, 30.5], "integers 0"),
    (["annotations", 0, "segmentations", 0, "counts"], [10, HUGE], "integers 0"),
    (
        ["annotations", 0, "segmentations", 0, "counts"],
        40,
        "counts: expected a list or",
    ),
    (["annotations", 0, "segmentations", 0, "counts"], BOMB, "add up to 40"),
]
RLE = [1, "segmentations", 3]
RESULTS_DEFECTS = [
    ([0], None, "entry 0: expected an object"),
    ([1], [], "entry 1: expected an object"),
    *[
        ([1, key], DELETE, f"entry 1: {key}: expected a value")
        for key in ("video_id", "category_id", "score", "segmentations")
    ],
    *[([0, "video_id"], bad, "video_id: expected an id") for bad in (None, [], {})],
    *[
        ([0, "video_id"], bad, "video_id: expected a video of the truth")
        for bad in ("1", 1.5, -1, math.nan)
    ],
    ([0, "video_id"], HUGE, "video_id: expected a video of the truth"),
    ([1, "video_id"], 0, "entry 1: video_id: expected a video of the truth, got 0"),
    *[([0, "category_id"], bad, "category_id: expected an id") for bad in (None, [])],
    *[
        ([1, "score"], bad, "entry 1: score: expected a finite number")
        for bad in (None, "0.5", math.nan, [])
    ],
    ([1, "segmentations"], None, "segmentations: expected a list"),
    ([1, "segmentations"], {"0": None}, "segmentations: expected a list"),
    (RLE, 1, r"entry 1: segmentations\[3\]: expected an object"),
    (RLE, [[1, 2, 3, 4, 5, 6]], r"segmentations\[3\]: expected an object"),
    (RLE, {"counts": "1"}, "size: expected a value"),
    ([*RLE, "size"], DELETE, "size: expected a value"),
    ([*RLE, "size"], "4x10", r"size: expected \[height, width\]"),
    ([*RLE, "size"], [4.5, 10], r"size: expected \[height, width\]"),
    ([*RLE, "size"], [-4, -10], r"size: expected \[height, width\]"),
    ([*RLE, "size"], [10**6, 10**6], r"size: expected \[height, width\]"),
    ([*RLE, "size"], [8, 10], "add up to 80, got runs that add up to 40"),
    ([*RLE, "counts"], DELETE, "counts: expected a value"),
    ([*RLE, "counts"], None, "counts: expected compressed"),
    ([*RLE, "counts"], [32, 8], "counts: expected compressed"),
    ([*RLE, "counts"], "", "an empty string"),
    ([*RLE, "counts"], "héllo", "counts: expected compressed"),
    ([*RLE, "counts"], "12 3", "foreign characters"),
    ([*RLE, "counts"], "1\n2", "foreign characters"),
    ([*RLE, "counts"], "12z", "foreign characters"),
    ([*RLE, "counts"], "12P", "a string cut off"),
    ([*RLE, "counts"], "1", r"segmentations\[3\]: counts: .* add up to 40"),
    ([*RLE, "counts"], BOMB, "counts: .* add up to 40"),
    ([*RLE, "counts"], "oooooooooo1", "of more than 6 characters"),
    ([*RLE, "counts"], "8I8", "add up to"),
    ([*RLE, "counts"], "1" * 5000, "add up to"),
]
# Sound for the official tool, errors if asked to be strict.
STRICT_TRUTH = [
    (["annotations", 0, "id"], 0, "id: expected >= 1, got 0"),
    (["annotations", 0, "id"], 2, "id: expected a new id, got 2"),
    (["annotations", 0, "category_id"], 7, "category_id: expected one of"),
    (["annotations", 0, "areas"], [8], "areas: expected 4 entries, got 1"),
    (["annotations", 0, "segmentations"], [None] * 3, "expected 4 entries, got 3"),
    (["annotations", 0, "segmentations", 0, "size"], [5, 8], r"\[4, 10\] as the video"),
    (["annotations", 0, "segmentations", 0], [], "polygons or null"),
    (["annotations", 0, "segmentations", 0], {}, "polygons or null"),
    (["annotations", 0, "segmentations", 0], [[1, 2, 3, 4, 5]], "expected polygons"),
    (["annotations", 0, "segmentations", 0], [[1, 1, 5, 1, 5, 3, 9]], "polygons"),
    (["annotations", 0, "segmentations", 0, "counts"], [10, 30.0], "integers 0"),
    (["annotations", 0, "segmentations", 0, "size"], [4.0, 10], r"size: expected \["),
    (["annotations", 0, "segmentations", 0, "size"], [4, 10, 1], r"size: expected \["),
    (["videos", 1, "id"], 1, r"videos\[1\]: id: expected a new id"),
    *[(["videos", 1, "id"], bad, "id: expected an integer >= 0") for bad in (2.5, -2)],
    (["videos", 0, "length"], 5, "length: expected 4 as file_names"),
    (["videos", 0, "length"], 0, "length: expected 4 as file_names"),
    (["videos", 0, "length"], "4", "length: expected 4 as file_names"),
    (["videos", 0, "length"], DELETE, "length: expected 4 .*key missing"),
    (["videos", 0, "file_names"], "a.jpg", "file_names: expected a list"),
    (["categories", 0, "name"], 3, "name: expected a string"),
    (["categories", 0, "name"], DELETE, "name: expected a string, got nothing"),
    *[(["annotations", 0, "id"], x, "id: expected an int") for x in (1.5, True, -1)],
    (["annotations", 1, "video_id"], 9, "annotation 2: video_id: expected one of"),
    (["annotations", 1, "video_id"], "1", "annotation 2: video_id: expected one of"),
    (["annotations", 1, "video_id"], 1.0, "annotation 2: video_id: expected 1, got"),
    (["annotations", 1, "category_id"], True, "category_id: expected 1, got True"),
    (["annotations", 1, "iscrowd"], 2, "annotation 2: iscrowd: expected 0 or 1"),
    *[(["annotations", 1, "areas", 0], x, r"areas\[0\]") for x in (-8, [], "", False)],
    (["annotations", 1, "occlusion"], ["no_occlusion"], "a list of 4 entries, got 1"),
    (["annotations", 1, "occlusion"], 3, "occlusion: expected a list"),
    (["annotations", 1, "occlusion"], ["none"] * 4, r"occlusion\[0\]: expected one of"),
    (["annotations", 1, "occlusion"], [[]] * 4, r"occlusion\[0\]"),
]
STRICT_RESULTS = [
    ([1, "category_id"], 7, "entry 1: category_id: expected a category of the truth"),
    ([1, "segmentations"], [], "entry 1: segmentations: expected 4 entries, got 0"),
    ([1, "segmentations"], [None] * 9, "segmentations: expected 4 entries, got 9"),
    ([*RLE, "size"], [10, 4], r"segmentations\[3\]: size: expected \[4, 10\]"),
    ([*RLE, "size"], [4, 10, 1], r"size: expected \[height, width\]"),
    ([*RLE, "size"], [4.0, 10.0], r"size: expected \[height, width\]"),
    *[(RLE, bad, r"segmentations\[3\]: expected null") for bad in (0, [], {}, "")],
    *[([0, "video_id"], bad, "video_id: expected 1, got") for bad in (True, 1.0)],
    *[
        ([0, "category_id"], bad, "entry 0: category_id: expected")
        for bad in (True, 1.0, "1", 1.5, -1)
    ],
    *[
        ([1, "score"], bad, "entry 1: score: expected a finite number")
        for bad in (True, math.inf, -math.inf, HUGE, 10**400)
    ],
]
TEXTS = [
    ("", "expected JSON"),
    ("[", "expected JSON"),
    ('[{"video_id": 1, "segmen', "expected JSON"),
    ("\x00\x01", "expected JSON"),
    (DEEP, "nesting too deep"),
    ("{'video_id': 1}", "expected JSON"),
    ("9" * 5000, "expected JSON"),
    ("null", "top level: expected"),
    ("3", "top level: expected"),
    ('"text"', "top level: expected"),
]


def changed(content, path, value):
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is DELETE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


def check(error, path, message):
    text = str(error.value)
    assert text.startswith(str(path)), text
    assert "\n" not in text and len(text) < 400, text
    assert error.match(message)


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text)
        return path

    return write_file


def test_there_are_a_hundred():
    groups = (TRUTH_DEFECTS, RESULTS_DEFECTS, STRICT_TRUTH, STRICT_RESULTS, TEXTS)
    assert sum(map(len, groups)) >= 100


def test_sound_files_pass(write):
    truth = load_truth(write("truth.json", TRUTH), official_quirks=False)
    load_results(write("results.json", RESULTS), truth, official_quirks=False)
    assert not truth.tolerated


@pytest.mark.parametrize("case", [*TRUTH_DEFECTS, *STRICT_TRUTH])
def test_truth(case, write):
    where, value, message = case
    path = write("truth.json", changed(TRUTH, where, value))
    if case in STRICT_TRUTH:
        assert sum(load_truth(path).tolerated.values()) == 1
    with pytest.raises(FormatError) as error:
        load_truth(path, official_quirks=case not in STRICT_TRUTH)
    check(error, path, message)


@pytest.mark.parametrize("case", [*RESULTS_DEFECTS, *STRICT_RESULTS])
def test_results(case, write):
    where, value, message = case
    truth = load_truth(write("truth.json", TRUTH))
    path = write("results.json", changed(RESULTS, where, value))
    if case in STRICT_RESULTS:
        assert sum(load_results(path, truth).tolerated.values()) == 1
    with pytest.raises(FormatError) as error:
        load_results(path, truth, official_quirks=case not in STRICT_RESULTS)
    check(error, path, message)


@pytest.mark.parametrize("text, message", TEXTS)
def test_text(text, message, write):
    truth = load_truth(write("truth.json", TRUTH))
    path = write("results.json", text)
    with pytest.raises(FormatError) as error:
        load_results(path, truth)
    check(error, path, message)
    with pytest.raises(FormatError) as error:
        load_truth(path)
    check(error, path, message)


def test_unreadable(tmp_path):
    with pytest.raises(FormatError, match="expected a readable file, got: No such"):
        load_truth(tmp_path / "absent.json")
    with pytest.raises(FormatError, match="expected a readable file"):
        load_truth(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    with pytest.raises(FormatError, match="latin.json: expected JSON"):
        load_truth(tmp_path / "latin.json")


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, RESULTS)
    before = path.read_text()
    assert json.loads(before) == RESULTS
    with pytest.raises(FormatError, match="entry 0: score"):
        write_results(path, [changed(RESULTS, [0, "score"], math.nan)[0]])
    with pytest.raises(TypeError):
        write_results(path, [changed(RESULTS, [0, "segmentations", 0], 3)[0]])
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]

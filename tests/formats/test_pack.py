import json
import zipfile

import numpy as np
import pytest

from tests.metrics.scenes import prediction, rows, track, truth_file
from vis_jax.formats.json_checks import FormatError
from vis_jax.formats.pack import pack
from vis_jax.formats.results_json import find_defects
from vis_jax.formats.split import split_videos, write_split
from vis_jax.formats.truth_json import load_videos, parse_truth

MASKS = rows(8, 8, None, 8)


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write_file


@pytest.fixture
def videos(write):
    """A file of a server's split: no annotations."""
    content = truth_file(None, lengths=(4, 4))
    del content["annotations"]
    return write("valid.json", content)


def test_the_archive_holds_the_results(videos, write, tmp_path):
    entries = [prediction(0.5, MASKS)] * 102
    path = write("mine.json", entries)
    packed = pack(path, videos, tmp_path / "submit.zip")
    assert packed == (102, [2], 2)
    with zipfile.ZipFile(tmp_path / "submit.zip") as archive:
        assert archive.namelist() == ["results.json"]
        assert json.loads(archive.read("results.json")) == entries
    first = (tmp_path / "submit.zip").read_bytes()
    pack(path, videos, tmp_path / "submit.zip")
    assert (tmp_path / "submit.zip").read_bytes() == first


def test_every_reason_is_named(videos, write, tmp_path):
    small = [m if m is None else m[:, :5] for m in MASKS]
    entries = [
        prediction(0.5, MASKS),
        prediction(0.5, MASKS[:3]) | {"category_id": 7},
        prediction(0.5, MASKS, video=3),
        prediction(0.5, MASKS) | {"score": "0.5"},
        prediction(0.5, small, video=2),
        prediction(0.5, MASKS)
        | {"segmentations": [{"size": [4, 10], "counts": [40]}, None, None, None]},
        prediction(0.5, MASKS) | {"segmentations": None},
    ]
    path = write("mine.json", entries)
    lines = find_defects(path, load_videos(videos))
    expected = [
        "entry 1: segmentations: expected 4 entries, got 3",
        "entry 1: category_id: expected a category of the truth, got 7",
        "entry 2: video_id: expected a video of the truth, got 3",
        "entry 3: score: expected a finite number, got '0.5'",
        *[f"entry 4: segmentations[{t}]: size: expected [4, 10]" for t in (0, 1, 3)],
        "entry 5: segmentations[0]: counts: expected compressed run lengths",
        "entry 6: segmentations: expected a list, got None",
    ]
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(f"{path}: {start}")
    with pytest.raises(FormatError, match=r"entry 1: .* \(and 8 more\)$"):
        pack(path, videos, tmp_path / "submit.zip")
    assert not (tmp_path / "submit.zip").exists()


@pytest.mark.parametrize(
    "content, expected",
    [
        ([], "a list with at least one entry, got []"),
        ({}, "a list, got {}"),
        (None, "a list, got None"),
        (3, "a list, got 3"),
    ],
)
def test_empty_results_are_refused(content, expected, videos, write):
    lines = find_defects(write("mine.json", content), load_videos(videos))
    assert len(lines) == 1 and lines[0].endswith(f"top level: expected {expected}")


def labelled_videos(num_videos, seed=0):
    """Videos with one to three tracks; category k is in about 1 / k of them."""
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, 11)
    tracks = []
    for video in range(1, num_videos + 1):
        for category in rng.choice(10, rng.integers(1, 4), p=chance / chance.sum()):
            masks = rows(8, size=(4, 10))
            tracks.append(
                track(len(tracks) + 1, masks, video=video, category=int(category) + 1)
            )
    return truth_file(tracks, lengths=[1] * num_videos, num_categories=10)


def test_categories_keep_their_share():
    truth = parse_truth(labelled_videos(200))
    split = split_videos(truth, num_held_out=40, seed=0)
    assert len(split.held_out) == 40
    assert sorted(split.train + split.held_out) == sorted(truth.videos)
    for category in truth.categories:
        ids = {x.video_id for x in truth.tracks if x.category_id == category}
        held = len(ids & set(split.held_out))
        assert abs(held - len(ids) / 5) <= 2, category


@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_video_cannot_be_split(number):
    content = labelled_videos(1)
    with pytest.raises(ValueError, match="videos: expected at least 2 videos, got 1$"):
        split_videos(parse_truth(content), num_held_out=number, seed=0)


@pytest.mark.parametrize("number", [0, 2])
def test_both_sides_of_a_split_have_a_video(number):
    truth = parse_truth(labelled_videos(2))
    expected = f"num_held_out: expected 1 .. 1 of the 2 videos of .*, got {number}$"
    with pytest.raises(ValueError, match=expected):
        split_videos(truth, num_held_out=number, seed=0)
    assert len(split_videos(truth, num_held_out=1, seed=0).held_out) == 1


def test_only_the_seed_changes_a_split():
    content = labelled_videos(50)
    first = split_videos(parse_truth(content), num_held_out=10, seed=1)
    content["videos"].reverse()
    content["annotations"].reverse()
    assert split_videos(parse_truth(content), num_held_out=10, seed=1) == first
    assert split_videos(parse_truth(content), num_held_out=10, seed=2) != first


def test_split_is_written_as_lists_of_ids(write, tmp_path):
    path = write("train.json", labelled_videos(10))
    split = write_split(path, tmp_path / "split.json", num_held_out=3, seed=4)
    content = json.loads((tmp_path / "split.json").read_text())
    assert content == {"seed": 4, "train": split.train, "held_out": split.held_out}
    for count in (0, 10):
        with pytest.raises(ValueError, match="num_held_out: expected 1 .. 9"):
            write_split(path, tmp_path / "x.json", num_held_out=count, seed=0)

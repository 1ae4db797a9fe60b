import json
import zipfile

import pytest

from tests.command_line import call, error_of
from tests.commands.folder import write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "shapes", num_videos=4)


@pytest.fixture
def results(folder, tmp_path):
    """The truth itself, as predictions."""
    truth = json.loads((folder / "instances.json").read_text())
    keys = ("video_id", "category_id", "segmentations")
    entries = [
        {key: track[key] for key in keys} | {"score": 1.0}
        for track in truth["annotations"]
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    return path


def test_make_shapes_writes_what_is_asked_for(tmp_path):
    words = ("--num_videos=1", "--height=48", "--width=64", "--length=3", "--seed=5")
    outcome = call("data", "make_shapes", "--output", tmp_path / "shapes", *words)
    assert (outcome.code, outcome.out) == (0, f"data          {tmp_path / 'shapes'}\n")
    (video,) = json.loads((tmp_path / "shapes/instances.json").read_text())["videos"]
    assert [video[key] for key in ("height", "width", "length")] == [48, 64, 3]
    again = error_of("data", "make_shapes", "--output", tmp_path / "shapes", *words)
    assert "expected a new or empty folder" in again
    words = ("--output", tmp_path / "none", "--height=0")
    assert "height" in error_of("data", "make_shapes", *words)
    assert not (tmp_path / "none").exists()


def test_split_prints_what_sets_the_held_out_videos(folder, tmp_path):
    words = ("--truth", folder / "instances.json", "--output", tmp_path / "split.json")
    outcome = call("data", "split", *words, "--num_held_out=1", "--seed=3")
    assert outcome.code == 0
    split = json.loads((tmp_path / "split.json").read_text())
    assert (split["seed"], len(split["train"]), len(split["held_out"])) == (3, 3, 1)
    flag = f"--config.data.held_out='({split['held_out'][0]},)'"
    assert outcome.out.splitlines()[-1] == flag
    (tmp_path / "split.json").unlink()
    message = error_of("data", "split", *words, "--num_held_out=4")
    assert message.startswith("num_held_out: expected 1 .. 3 of the 4 videos")
    assert not (tmp_path / "split.json").exists()


def test_pack_writes_an_archive_of_results_that_a_server_takes(
    folder, results, tmp_path
):
    archive = tmp_path / "submission.zip"
    words = ("--results", results, "--truth", folder / "instances.json")
    outcome = call("data", "pack", *words, "--output", archive)
    assert outcome.code == 0
    entries = json.loads(results.read_text())
    assert f"predictions   {len(entries)}\n" in outcome.out
    with zipfile.ZipFile(archive) as opened:
        assert json.loads(opened.read("results.json")) == entries

    first = [entry for entry in entries if entry["video_id"] == 1]
    results.write_text(json.dumps(first))
    outcome = call("data", "pack", *words, "--output", archive)
    assert "warning: videos without a prediction: 2, 3, 4\n" in outcome.out

    archive.unlink()
    results.write_text(json.dumps([entries[0] | {"score": "high"}]))
    message = error_of("data", "pack", *words, "--output", archive)
    assert str(results) in message
    assert "score" in message
    assert not archive.exists()


def test_score_of_perfect_results(folder, results, tmp_path):
    words = ("--truth", folder / "instances.json", "--results", results)
    outcome = call("score", *words, "--tracking", "--output", tmp_path / "scores.json")
    assert outcome.code == 0
    assert "HOTA" in outcome.out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["AP"], scores["HOTA"]) == (1.0, 1.0)
    message = error_of("score", *words, "--output", tmp_path / "none" / "scores.json")
    assert "existing folder" in message


def test_score_of_short_and_long_videos(folder, results, tmp_path):
    truth = json.loads((folder / "instances.json").read_text())
    parts = {"short": (1, 2), "long": (3, 4)}
    for name, ids in parts.items():
        part = dict(truth)
        part["videos"] = [one for one in truth["videos"] if one["id"] in ids]
        tracks = [one for one in truth["annotations"] if one["video_id"] in ids]
        part["annotations"] = tracks
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    entries = json.loads(results.read_text())
    kept = [entry for entry in entries if entry["video_id"] in parts["short"]]
    results.write_text(json.dumps(kept))
    truths = [f"--truth={tmp_path}/short.json", f"--truth_long={tmp_path}/long.json"]
    words = (*truths, "--results", results)
    outcome = call("score", *words, "--output", tmp_path / "scores.json")
    assert outcome.code == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [scores["mAP"], scores["short"]["AP"], scores["long"]["AP"]] == [0.5, 1, 0]
    assert outcome.out.split()[:2] == ["mAP", "50.0"]
    message = error_of("score", *words, "--tracking")
    assert message == "--tracking: expected without --truth_long, got both"


def test_score_names_what_is_wrong_with_a_file(folder, results, tmp_path):
    results.write_text(results.read_text()[:-20])
    words = ("--truth", folder / "instances.json", "--results", results)
    message = error_of("score", *words, "--output", tmp_path / "scores.json")
    assert message.startswith(f"{results}: expected JSON")
    assert not (tmp_path / "scores.json").exists()

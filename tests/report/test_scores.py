import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.command_line import call, error_of
from tests.report.scene import (
    HOSTILE,
    LEFT,
    RIGHT,
    SIZE,
    T,
    content_in,
    unpack,
    write_scene,
)
from vis_jax.formats.results_json import load_results, load_truth
from vis_jax.report import score_video, scores
from vis_jax.report.page import safe_json
from vis_jax.report.pictures import FolderFrames
from vis_jax.report.score_video import cover_tracks, size_of
from vis_jax.report.scores import Settings, score_content
from vis_jax.scoring import score


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path)


def content_of(scene, **settings):
    truth = load_truth(scene[0])
    return score_content(truth, load_results(scene[1], truth), {}, Settings(**settings))


def test_what_became_of_each_track(scene):
    content = content_of(scene)
    worst, best = content["videos"]
    assert (worst["name"], best["AP"]) == (HOSTILE, pytest.approx(1))
    assert worst["AP"] < best["AP"]
    first, second, third = worst["truths"]
    assert first["cover"] == [[0, 3, 0], [3, 5, 1]]
    assert second["cover"] == [[0, 3, 1], [3, 5, 0]]
    assert first["switches"] == second["switches"] == [3]
    assert (third["cover"], third["switches"]) == ([[1, 3, -1]], [])
    kinds = [(one["kind"], one["target"]) for one in worst["predictions"]]
    assert kinds == [("switch", 0), ("switch", 1), ("classification", 2)]
    # Each has the colour of its object: the switch shows as a change of colour.
    colours = [track["colour"] for track in worst["truths"]]
    assert [one["colour"] for one in worst["predictions"]] == colours
    assert len(set(colours)) == 3
    np.testing.assert_array_equal(unpack(first["masks"][0], SIZE), LEFT)
    np.testing.assert_array_equal(
        unpack(worst["predictions"][0]["masks"][3], SIZE), RIGHT
    )
    assert (third["start"], len(third["masks"])) == (1, 2)


def test_the_numbers_are_those_of_the_metrics(scene):
    content = content_of(scene)
    numbers = score(*scene[:2])
    assert dict(content["summary"])["AP"] == pytest.approx(numbers["AP"], abs=1e-5)
    oracles = content["oracles"]
    assert oracles["as it is"] == pytest.approx(numbers["AP"], abs=1e-5)
    assert oracles["classes"] > numbers["AP"]
    assert oracles["identities"] > numbers["AP"]
    lost = {kind: (gain, count) for kind, gain, count in content["errors"]}
    assert lost["classification"][1] == 1
    assert lost["switch"][1] == 2
    assert lost["classification"][0] > 0
    for values in content["curves"]["mean"].values():
        assert len(values) == 101
    mean = np.mean(content["curves"]["mean"]["IoU 0.50 to 0.95"])
    assert mean == pytest.approx(numbers["AP"], abs=1e-4)


def test_tracking_numbers_stand_beside_ap(scene):
    truth = load_truth(scene[0])
    results = load_results(scene[1], truth)
    found = score_content(truth, results, {"IDSW": 2, "IDF1": 0.5}, Settings())
    assert dict(found["summary"])["IDSW"] == 2


def test_low_scores_cover_nothing_but_are_shown(scene):
    worst = content_of(scene, score_threshold=0.75)["videos"][0]
    assert worst["truths"][1]["cover"] == [[0, 3, -1], [3, 5, 0]]
    assert len(worst["predictions"]) == 3


def test_the_command_writes_one_complete_file(scene, tmp_path):
    page = tmp_path / "out.html"
    words = ("score", "--truth", scene[0], "--results", scene[1], "--report", page)
    outcome = call(*words, "--frames", scene[2], "--tracking")
    assert outcome.code == 0, outcome.err
    assert f"report        {page}" in outcome.out
    content = content_in(page)
    pictures = content["videos"][0]["pictures"]
    assert len(pictures) == T
    header, data = pictures[2].split(",")
    assert header == "data:image/webp;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert pixels.shape == (*SIZE, 3)
    assert abs(int(pixels.mean()) - 100) < 4
    assert "IDSW" in dict(content["summary"])
    assert not re.search(r"https?://(?!www\.w3\.org)", page.read_text())
    assert [*tmp_path.glob("out.html*")] == [page]  # no temporary file


def test_flags_that_do_not_go_together(scene, tmp_path):
    words = ("score", "--truth", scene[0], "--results", scene[1])
    assert error_of(*words, "--frames", scene[2]).startswith("--frames: expected --rep")
    page = ("--report", tmp_path / "out.html")
    scores = tmp_path / "scores.json"
    none = ("--frames", tmp_path / "none", "--output", scores)
    message = error_of(*words, *page, *none)
    assert message.startswith("--frames: expected a folder with clip1/00000.jpg, got")
    assert not scores.exists()  # it comes before the work
    message = error_of(*words, *page, "--truth_long", scene[0])
    assert message == "--report: expected without --truth_long, got both"
    message = error_of(*words, "--report", tmp_path / "none" / "out.html")
    assert message.startswith("--report: expected a file in an existing folder")
    message = error_of(*words, "--report", tmp_path)
    assert message == f"--report: expected a file, got the folder {tmp_path}"
    assert not (tmp_path / "out.html").exists()


def test_names_end_no_element(scene, tmp_path):
    page = tmp_path / "out.html"
    score(*scene[:2], report_path=page)
    text = page.read_text()
    assert "<img" not in text
    assert text.count("</script>") == 2
    assert content_in(page)["videos"][0]["name"] == HOSTILE
    assert json.loads(safe_json(["<&>\u2028"])) == ["<&>\u2028"]
    assert not set("<>&\u2028") & set(safe_json(["<&>\u2028"]))


def test_frames_are_read_inside_the_folder_only(scene, tmp_path):
    truth = json.loads(scene[0].read_text())
    (tmp_path / "secret.jpg").write_bytes((scene[2] / "clip1/00000.jpg").read_bytes())
    (scene[2] / "clip1/bad.jpg").write_bytes(b"no picture")
    names = truth["videos"][0]["file_names"]
    names[1:4] = ["../secret.jpg", str(tmp_path / "secret.jpg"), "clip1/bad.jpg"]
    names += ["x" * 5000, "\ud800.jpg", "\0", 3, "clip1"]
    scene[0].write_text(json.dumps(truth))
    read = FolderFrames(scene[2], scene[0])
    assert read(1, 0).shape == (*SIZE, 3)
    assert [read(1, t) for t in (1, 2, 3, *range(5, 11))] == [None] * 9
    assert read(7, 0) is None
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "clip1").symlink_to(scene[2] / "clip1")
    assert FolderFrames(tmp_path / "linked", scene[0])(1, 0) is not None


def test_frames_stand_upright(scene):
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(pixels).save(scene[2] / "clip1/00000.jpg", exif=exif)
    assert FolderFrames(scene[2], scene[0])(1, 0).shape == (*SIZE, 3)


def test_the_size_is_bounded(scene, monkeypatch):
    frames = FolderFrames(scene[2], scene[0])
    monkeypatch.setattr(scores, "PICTURE_BYTES", 1)
    worst, best = content_of(scene, frames=frames)["videos"]
    assert worst["pictures"] and best["pictures"] is None and best["truths"]
    monkeypatch.setattr(scores, "TRACK_BYTES", 1)
    worst, best = content_of(scene, frames=frames)["videos"]
    assert worst["truths"] and "truths" not in best and best["AP"] is not None
    assert (worst["frames"], worst["step"]) == (T, 1)
    monkeypatch.setattr(score_video, "VIDEO_BYTES", size_of(worst) - 1)
    worst, _ = content_of(scene)["videos"]
    assert (worst["frames"], worst["step"]) == (3, 2)
    monkeypatch.setattr(score_video, "VIDEO_BYTES", 1)
    assert content_of(scene)["videos"][0]["frames"] == 1


def test_odd_files_that_score_have_a_report(scene):
    truth, results = (json.loads(path.read_text()) for path in scene[:2])
    results[0]["score"], results[1]["score"] = float("inf"), float("-inf")
    results[2]["segmentations"] = results[2]["segmentations"][:2]
    del truth["videos"][0]["length"], truth["videos"][0]["file_names"]
    truth["annotations"], results = truth["annotations"][1:], results[1:]
    for path, content in zip(scene[:2], (truth, results), strict=True):
        path.write_text(json.dumps(content))
    content = content_of(scene)
    safe_json(content)
    assert [video["frames"] for video in content["videos"]] == [T, 1]
    assert content["videos"][0]["predictions"][-1]["score"] < -1


def test_nothing_predicted_and_nothing_annotated(scene):
    scene[1].write_text("[]")
    content = content_of(scene)
    assert dict(content["summary"])["AP"] == 0
    assert [track["missed"] for track in content["videos"][0]["truths"]] == [True] * 3
    truth = json.loads(scene[0].read_text())
    scene[0].write_text(json.dumps(truth | {"annotations": []}))
    content = content_of(scene)
    assert dict(content["summary"])["AP"] is None
    assert content["curves"] == {"mean": {}, "classes": {}}
    safe_json(content)
    assert cover_tracks([], [], 0.3).num_switches == 0

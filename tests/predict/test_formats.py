import json

import numpy as np
import pytest
from PIL import Image

from tests.predict.squares import (
    H,
    T,
    W,
    encoded,
    names_in,
    never,
    square,
    write_squares,
)
from tests.report.scene import content_in, unpack
from vis_jax.predict.formats import FORMATS
from vis_jax.predict.sources import from_arrays
from vis_jax.results.clock import NO_CLOCK
from vis_jax.results.frame import FrameResult, LiveTracks


def test_every_format_is_written_and_nothing_else(source, tmp_path):
    for names in (("csv",), ("mot", "mots", "coco"), ("json",), tuple(FORMATS)):
        output = tmp_path / (names[0] if len(names) < 4 else "all")
        written = write_squares(source, output, formats=names)
        files = {FORMATS[name].file for name in names}
        files |= {"video.json"} if "json" in names else set()
        assert {path.name for path in output.iterdir()} == files
        assert {p.name for p in written if p is not None} == files
    rows = (tmp_path / "csv/tracks.csv").read_text().splitlines()[1:]
    assert len(rows) == 2 * (T - 1)  # track 9 does not reach the threshold
    assert rows[0] == "0,0,4,dog,0.9,4,40,28,64,576"
    boxes = (tmp_path / "mot/mot.txt").read_text().splitlines()
    assert boxes[0] == "1,1,17,41,24,24,0.600000,-1,-1,-1"
    assert len((tmp_path / "mot/mots.txt").read_text().splitlines()) == 2 * (T - 1)
    coco = json.loads((tmp_path / "mot/coco.json").read_text())
    assert {one["track_id"] for one in coco["annotations"]} == {1, 4}
    results = json.loads((tmp_path / "json/results.json").read_text())
    assert [entry["track_id"] for entry in results] == [4, 1, 9]
    for names in (("gif",), ()):
        with pytest.raises(ValueError, match="--save: expected some of json,jsonl,csv"):
            write_squares(source, tmp_path / "no", never, formats=names)


def test_other_classes_and_tracks_are_in_no_file(source, tmp_path):
    written = write_squares(
        source, tmp_path / "dogs", classes=("dog",), write_pngs=True
    )
    results = json.loads(written.results.read_text())
    assert [entry["track_id"] for entry in results] == [4, 9]
    lines = [json.loads(line) for line in written.tracks.read_text().splitlines()]
    assert [[one["id"] for one in line["objects"]] for line in lines[:1]] == [[4]]
    assert set(np.unique(Image.open(written.ids / "00000.png"))) == {0, 4}
    written = write_squares(source, tmp_path / "one", tracks=(1,))
    (entry,) = json.loads(written.results.read_text())
    assert entry["track_id"] == 1
    with pytest.raises(ValueError, match="--classes: expected some of cat, dog, got "):
        write_squares(source, tmp_path / "no", never, classes=("cow",))
    assert "no" not in names_in(tmp_path)


@pytest.mark.parametrize("whole", [False, True])
def test_the_page_has_frames_and_tracks(source, tmp_path, whole):
    options = {"formats": ("json", "html"), "whole": whole}
    written = write_squares(source, tmp_path / "out", **options)
    assert written.html == tmp_path / "out" / "report.html"
    content = content_in(written.html)
    assert dict(content["summary"]) == {"tracks": 2, "classes": 2, "frames": T}
    (video,) = content["videos"]
    assert (video["frames"], len(video["pictures"])) == (T, T)
    best, second = video["predictions"]  # the third is below the threshold
    assert (best["name"], best["score"]) == ("4", 0.9)
    assert [content["classes"][one["class"]] for one in (best, second)] == [
        "dog",
        "cat",
    ]
    assert [len(one["masks"]) for one in (best, second)] == [T - 1] * 2
    np.testing.assert_array_equal(unpack(best["masks"][2], (H, W)), square(4, 2))
    again = write_squares(source, tmp_path / "out", overwrite=True)
    assert again.html is None and not written.html.exists()


def test_the_page_has_the_class_and_score_after_the_last_frame(tmp_path):
    def stream(frames, *, clock=NO_CLOCK):
        for t, _ in enumerate(frames):
            probs = np.array([[0.1 * t, 0.45]], np.float32)
            tracks = LiveTracks(np.array([5], np.int32), probs)
            rows = np.arange(int(t < 2))  # it is seen twice, and known better later
            masks = [encoded(square(4, t))] * len(rows)
            yield FrameResult(t, tracks, rows, masks, (H, W))

    arrays = [np.zeros((H, W, 3), np.uint8)] * 7
    source, formats = from_arrays(arrays), ("html",)
    written = write_squares(source, tmp_path / "out", stream, formats=formats)
    content = content_in(written.html)
    (track,) = content["videos"][0]["predictions"]
    assert content["classes"][track["class"]] == "cat"
    assert track["score"] == pytest.approx(0.6)
    assert (track["start"], len(track["masks"])) == (0, 2)

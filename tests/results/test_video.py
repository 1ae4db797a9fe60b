import dataclasses
import json
import sys
from fractions import Fraction
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.results.scenes import CATEGORIES, SIZE, box, rle, video
from tests.small_disk import files_up_to
from vis_jax.formats.results_json import load_results, video_entries
from vis_jax.formats.truth_json import load_truth
from vis_jax.results.collect import Collector
from vis_jax.results.files import entry_pieces
from vis_jax.results.video import VideoResult

T = 3


def _result(**changes):
    """Track 4 is a dog or a cat and moves; track 2 is a bird in the first frame."""
    moving = [rle(box(t, 1, 2, 3)) for t in range(T)]
    bird = [rle(box(5, 0, 3, 2)), None, rle(box(0, 0, 0, 0))]
    fields = {
        "labels": np.array([1, 2, 0], np.int32),
        "scores": np.array([0.75, 0.5, 0.25], np.float32),
        "track_ids": np.array([4, 2, 4], np.int32),
        "segmentations": [moving, bird, moving],
        "height": SIZE[0],
        "width": SIZE[1],
        "num_frames": T,
        "fps": Fraction(25, 2),
        "categories": CATEGORIES,
        "name": "pond",
    }
    return VideoResult(**(fields | changes))


def test_masks_and_boxes_of_a_frame():
    found = _result()
    masks = found.masks(0)
    assert masks.dtype == bool
    moving = box(0, 1, 2, 3)
    np.testing.assert_array_equal(masks, [moving, box(5, 0, 3, 2), moving])
    np.testing.assert_array_equal(found.masks(1)[1], np.zeros(SIZE, bool))
    boxes = np.array([[1, 1, 3, 4], [0, 0, 0, 0], [1, 1, 3, 4]], np.float32)
    np.testing.assert_array_equal(found.boxes(1), boxes)
    assert found.best_entries.tolist() == [0, 1]


def test_tracks_are_the_entries_by_name():
    found = _result()
    names = [name for _, name in CATEGORIES]
    expected = [(4, names[1], 0.75), (2, names[2], 0.5), (4, names[0], 0.25)]
    assert found.tracks == expected
    assert _result(categories=()).tracks[0] == (4, "1", 0.75)


def test_files_are_as_the_scorer_reads_them(tmp_path):
    _result().save(tmp_path / "a" / "out")
    results = tmp_path / "a" / "out" / "results.json"
    entries = json.loads(results.read_text())
    assert entries == _result().to_ytvis()
    assert [entry["track_id"] for entry in entries] == [4, 2, 4]
    info = json.loads((tmp_path / "a" / "out" / "video.json").read_text())
    assert info == {
        "videos": [
            {
                "id": 1,
                "name": "pond",
                "height": 6,
                "width": 8,
                "length": 3,
                "file_names": ["pond/00000.jpg", "pond/00001.jpg", "pond/00002.jpg"],
                "fps": 12.5,
            }
        ],
        "categories": [
            {"id": 3, "name": "cat"},
            {"id": 7, "name": "dog"},
            {"id": 8, "name": "a bird"},
        ],
        "track_ids": [4, 2, 4],
    }
    (tmp_path / "truth.json").write_text(json.dumps(info | {"annotations": []}))
    truth = load_truth(tmp_path / "truth.json")
    read = load_results(results, truth, official_quirks=False)
    assert [track.category_id for track in read.tracks] == [7, 8, 3]


@pytest.mark.parametrize("top", [0, 1, 7])
def test_pieces_are_the_json_of_the_entries(top):
    collector = Collector(top)
    for one in video(0, 20, clip=3):
        collector.add(one)
    found = collector.result(20, SIZE)
    ids = [3, 7, 8]
    entries = video_entries(
        found.labels, found.scores, found.segmentations, video_id=5, category_ids=ids
    )
    pieces = list(entry_pieces(found, video_id=5, category_ids=ids))
    assert f"[{''.join(pieces)}]" == json.dumps(entries)
    assert max(map(len, pieces), default=0) < 300


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path):
    _result().save(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    longer = _result(num_frames=500, segmentations=[[rle(box(0, 0, 1, 1))] * 500] * 3)
    longer = dataclasses.replace(longer, file_names=("a.jpg",))
    with files_up_to(len(before) + 100), pytest.raises(OSError) as caught:
        longer.save(tmp_path)
    assert caught.value.filename == str(tmp_path / "results.json")
    assert (tmp_path / "results.json").read_bytes() == before
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["results.json", "video.json"]


@pytest.mark.parametrize("method", ["to_ytvis", "to_coco", "to_mots"])
def test_a_format_with_categories_needs_them(method):
    with pytest.raises(ValueError, match="categories: expected one for each label"):
        getattr(_result(categories=()), method)()


def test_what_is_shown_is_the_best_entry_of_each_track_that_scores_enough():
    found = _result().shown(0.5)
    assert found.tracks == [(4, "dog", 0.75), (2, "a bird", 0.5)]
    np.testing.assert_array_equal(found.masks(0), _result().masks(0)[:2])
    assert _result().shown(0.6).track_ids.tolist() == [4]
    assert _result().shown(0.9).to_mot() == ""


def test_a_table_has_a_row_for_each_object_of_a_frame():
    lines = _result().to_csv().splitlines()
    assert lines == [
        "frame,time,id,label,score,x1,y1,x2,y2,area",
        "0,0,4,dog,0.75,0,1,2,4,6",
        "0,0,2,a bird,0.5,5,0,8,2,6",
        "1,0.08,4,dog,0.75,1,1,3,4,6",
        "2,0.16,4,dog,0.75,2,1,4,4,6",
    ]
    assert ",,4,dog," in _result(fps=None).to_csv()


def test_masks_of_mots_do_not_overlap():
    large, small, inside = box(0, 0, 4, 4), box(2, 2, 4, 4), box(1, 1, 2, 2)
    found = _result(
        segmentations=[[rle(small)] * T, [rle(large)] * T, [rle(small)] * T],
        scores=np.array([0.75, 0.5, 0.25], np.float32),
    )
    lines = [line.split() for line in found.to_mots().splitlines()]
    assert [line[:5] for line in lines[:2]] == [
        ["1", "7004", "7", "6", "8"],
        ["1", "8002", "8", "6", "8"],
    ]
    assert len(lines) == 2 * T
    masks = [
        coco_mask.decode({"size": [6, 8], "counts": line[5]}).astype(bool)
        for line in lines[:2]
    ]
    np.testing.assert_array_equal(masks, [small, large & ~small])
    hidden = dataclasses.replace(
        found, segmentations=[[rle(large)] * T, [rle(inside)] * T, [rle(large)] * T]
    )
    assert [line.split()[1] for line in hidden.to_mots().splitlines()] == ["7004"] * T


def test_coco_has_an_annotation_for_each_frame_and_entry():
    content = json.loads(json.dumps(_result(file_names=("a", "b", "c")).to_coco()))
    size = {"height": 6, "width": 8}
    assert content["images"][1] == {"id": 2, "file_name": "b"} | size
    found = [(a["image_id"], a["category_id"]) for a in content["annotations"]]
    assert found == [(1, 7), (1, 8), (1, 3), (2, 7), (2, 3), (3, 7), (3, 3)]
    assert [a["id"] for a in content["annotations"]] == list(range(1, 8))
    bird = content["annotations"][1]
    np.testing.assert_array_equal(
        coco_mask.decode(bird.pop("segmentation")), box(5, 0, 3, 2)
    )
    assert bird == {
        "id": 2,
        "image_id": 1,
        "category_id": 8,
        "track_id": 2,
        "score": 0.5,
        "area": 6,
        "bbox": [5.0, 0.0, 3.0, 2.0],
        "iscrowd": 0,
    }


def test_mot_has_a_line_for_each_track_in_a_frame():
    assert _result().to_mot().splitlines() == [
        "1,2,6,1,3,2,0.500000,-1,-1,-1",
        "1,4,1,2,2,3,0.750000,-1,-1,-1",
        "2,4,2,2,2,3,0.750000,-1,-1,-1",
        "3,4,3,2,2,3,0.750000,-1,-1,-1",
    ]


def test_supervision(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        _result().to_supervision(0)
    module = ModuleType("supervision")
    module.Detections = SimpleNamespace
    monkeypatch.setitem(sys.modules, "supervision", module)
    found = _result().to_supervision(0)
    np.testing.assert_array_equal(found.xyxy, [[0, 1, 2, 4], [5, 0, 8, 2]])
    np.testing.assert_array_equal(found.mask, [box(0, 1, 2, 3), box(5, 0, 3, 2)])
    assert found.confidence.tolist() == [0.75, 0.5]
    assert (found.class_id.tolist(), found.tracker_id.tolist()) == ([1, 2], [4, 2])
    assert found.data["class_name"].tolist() == ["dog", "a bird"]
    none = _result(categories=()).to_supervision(2)
    assert none.tracker_id.tolist() == [4] and none.data == {}

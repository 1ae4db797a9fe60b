import json

import numpy as np
import pytest
from pycocotools import mask as coco

from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.errors import DataError

LENGTH = 6  # frames of the videos of the fixture


def check_masks(track, masks):
    """Run lengths of one track against pixels."""
    for found, mask in zip(track, masks, strict=True):
        assert (found is None) == (mask is None)
        if mask is not None:
            np.testing.assert_array_equal(coco.decode(found), mask)


def test_truth_is_what_was_annotated(write, annotations, truth_masks):
    dataset = YouTubeVis(write(annotations), "train")
    assert [c.name for c in dataset.categories] == ["ant", "cat"]
    assert [v.name for v in dataset.videos] == ["first", "second"]
    truth = dataset.truth(0)
    assert truth.labels.tolist() == [1, 0]
    assert truth.track_ids.tolist() == [1, 2]
    assert truth.boxes.dtype == np.float32
    assert truth.boxes[0, 3].tolist() == [6, 4, 26, 20]
    assert truth.boxes[1, 2].tolist() == [0, 0, 0, 0]
    assert truth.present[1].tolist() == [True, True, False, True, True, True]
    assert np.isnan(truth.occlusion).all()
    for k, number in enumerate((1, 2)):
        check_masks(truth.segmentations[k], truth_masks[number])


def test_polygons_crowds_and_nulls(write, annotations, truth_masks):
    first, second, _ = annotations["annotations"]
    first["iscrowd"] = 1
    parts = [[2, 2, 8, 2, 8, 8, 2, 8], [20, 2, 30, 2, 30, 8, 20, 8]]
    first["segmentations"] = [parts] + [None] * (LENGTH - 1)
    second["segmentations"] = [None] * LENGTH
    for entry in annotations["annotations"]:
        del entry["bboxes"], entry["areas"]
    truth = YouTubeVis(write(annotations), "train").truth(0)
    assert truth.crowd.tolist() == [True, False]
    assert truth.boxes[0, 0].tolist() == [2, 2, 30, 8]
    assert truth.present.sum() == 1
    expected = np.zeros((48, 64), bool)
    expected[2:8, 2:8] = expected[2:8, 20:30] = True
    check_masks(truth.segmentations[0][:1], [expected])


def test_a_mask_without_pixels_is_absent(write, annotations):
    empty = {"size": [48, 64], "counts": [48 * 64]}
    annotations["annotations"][0]["segmentations"][0] = empty
    truth = YouTubeVis(write(annotations), "train").truth(0)
    assert not truth.present[0, 0]
    assert truth.segmentations[0][0] is None


@pytest.mark.parametrize("how", ["missing", "null", "empty"])
def test_files_without_truth_have_videos(write, annotations, how):
    annotations["annotations"] = {"null": None, "empty": []}.get(how)
    if how == "missing":
        del annotations["annotations"]
    truth = YouTubeVis(write(annotations), "valid").truth(1)
    assert truth.boxes.shape == (0, LENGTH, 4)
    assert truth.segmentations == ()


def test_ovis_levels_of_occlusion(write, annotations):
    levels = ["no_occlusion", "slight_occlusion", None, "severe_occlusion"]
    annotations["annotations"][1]["occlusion"] = levels + [None] * 2
    truth = YouTubeVis(write(annotations), "train").truth(0)
    np.testing.assert_array_equal(
        truth.occlusion[1], [0, 0.25, np.nan, 0.75, np.nan, np.nan]
    )


def test_parts_divide_the_videos(write, annotations):
    root = write(annotations)
    names = {
        part: [
            v.name for v in YouTubeVis(root, "train", held_out=(2,), part=part).videos
        ]
        for part in ("train", "held_out", "all")
    }
    assert names == {
        "train": ["first"],
        "held_out": ["second"],
        "all": ["first", "second"],
    }
    kept = YouTubeVis(root, "train", held_out=("first",))
    assert kept.truth(0).boxes[0, 0].tolist() == [10, 30, 30, 46]
    with pytest.raises(DataError, match="held_out.*names or ids.*third"):
        YouTubeVis(root, "train", held_out=("third",))
    with pytest.raises(DataError, match="videos in part 'held_out'"):
        YouTubeVis(root, "train", part="held_out")


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("train/instances.json", "train/JPEGImages"),
        ("train.json", "train/JPEGImages"),
        ("annotations_train.json", "train"),
        ("annotations/annotations_train.json", "JPEGImages"),
        ("instances.json", "JPEGImages"),
    ],
)
def test_known_layouts_are_found(write, annotations, file, images):
    root = write(annotations, file=file, images=images)
    frames = YouTubeVis(root, "train").read_frames(0, np.array([3, 1]))
    assert frames.shape == (2, 48, 64, 3)
    assert frames[0, 10, 20, 0] > 240
    with pytest.raises(DataError, match=r"split '\.\./x'|name of a folder"):
        YouTubeVis(root, "../x")


def test_an_unknown_layout_lists_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        YouTubeVis(tmp_path / "nowhere", "train")
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(DataError) as error:
        YouTubeVis(tmp_path, "train")
    for text in ("train/instances.json", "train.json", "this file is there"):
        assert text in str(error.value)


def test_frames_that_cannot_be_read_name_file_and_video(write, annotations):
    root = write(annotations, images="JPEGImages")
    dataset = YouTubeVis(root, "train")
    file = root / "JPEGImages/second/00010.jpg"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"second/00010.jpg, video second.*truncated"):
        dataset.read_frames(1, np.array([0, 2]))
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"00010.jpg, video second.*whole image"):
        dataset.read_frames(1, np.array([2]))
    file.unlink()
    with pytest.raises(DataError, match=r"00010.jpg, video second.*No such file"):
        dataset.read_frames(1, np.array([2]))
    annotations["videos"][0].update(height=50)
    for entry in annotations["annotations"]:
        entry["segmentations"] = [None] * LENGTH
        entry["height"] = 50 if entry["video_id"] == 1 else 48
    (root / "instances.json").write_text(json.dumps(annotations))
    with pytest.raises(DataError, match=r"first.*expected \(50, 64\).*got \(48, 64\)"):
        YouTubeVis(root, "train").read_frames(0, np.array([0]))

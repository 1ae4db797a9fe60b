"""The check of a folder names every defect at once."""

import json
from copy import deepcopy

import pytest
from PIL import Image

from data_pipeline.checks.folder import check_folder, count
from data_pipeline.errors import DataError

LENGTH = 6  # frames of the videos of the fixture


def check(root):
    """Texts of the defects and of the warnings, and what is left."""
    defects, warnings = [], []
    checked = check_folder(
        root,
        "train",
        defect=lambda error: defects.append(str(error)),
        warning=lambda error: warnings.append(str(error)),
    )
    return defects, warnings, checked


def named(lines, *parts):
    """Whether one line, and only one, has all these parts."""
    return sum(all(part in line for part in parts) for line in lines) == 1


def test_a_clean_folder_has_counts_and_nothing_else(write, annotations):
    defects, warnings, checked = check(write(annotations, images="JPEGImages"))
    assert (defects, warnings) == ([], [])
    assert [tuple(row) for row in count(checked.content)] == [
        ("ant", 1, 1, 5),
        ("cat", 2, 2, 12),
        ("all", 2, 3, 12),
    ]


def plant_in_annotations(content):
    """Two defects of most kinds, so that finding the first is not enough."""
    first, second, third = content["annotations"]
    first["segmentations"][0]["counts"] = [3, 4]
    first["segmentations"][1]["size"] = [64, 48]
    first["segmentations"][2] = [[1, 1, 5, 5]]
    first["segmentations"][3]["counts"] = "\ud800"
    first["segmentations"][4] = [[1, 1, 5, 5, 3, 10**400]]
    first["bboxes"] = first["bboxes"][:5]
    first["iscrowd"] = 2
    second["segmentations"][0]["counts"] = "~~~"
    second["segmentations"][1]["counts"] = "o"
    second["areas"][0] = "large"
    second["length"] = 5
    third["segmentations"] = [None] * LENGTH
    third["bboxes"] = third["areas"] = None
    shorter = deepcopy(first) | {"id": 4, "segmentations": [None] * 5, "bboxes": None}
    strangers = [
        {"id": 5, "video_id": 99, "category_id": 98},
        {"id": 5, "video_id": 1, "category_id": 97, "segmentations": None},
        "no object",
    ]
    content["annotations"] += [shorter, *strangers]


def plant_in_videos(content):
    first, second = content["videos"]
    first["file_names"][1] = "/etc/passwd"
    first["file_names"][2] = "../first/00010.jpg"
    second["file_names"][5] = "second/00020.jpg"
    second["file_names"][0] = "first/00000.jpg"
    second["length"] = 7
    content["videos"] += [second | {"height": 0, "length": 8}, {"id": "3"}]
    content["categories"] += [{"id": 3, "name": "bee"}, {"id": 9, "name": ""}]


def test_every_defect_of_the_annotations_is_named(write, annotations):
    root = write(annotations, images="JPEGImages")
    plant_in_annotations(annotations)
    plant_in_videos(annotations)
    (root / "instances.json").write_text(json.dumps(annotations))
    defects, warnings, _ = check(root)
    expected = [
        ("categories[2].id", "used once"),
        ("categories[3].name",),
        ("video 1, file_names[1]", "/etc/passwd"),
        ("video 1, file_names[2]", "../first"),
        ("video 2, length", "got 7"),
        ("video 2, length", "got 8"),
        ("videos[2].id", "used once"),
        ("video 2, height",),
        ("videos[3].id", "whole number"),
        ("video [3], height",),
        ("video [3], width",),
        ("video [3], file_names",),
        ("annotation 1, segmentations[0].counts", "add up"),
        ("annotation 1, segmentations[1].size",),
        ("annotation 1, segmentations[2].[0]", "3 points"),
        ("annotation 1, segmentations[3].counts", "characters"),
        ("annotation 1, segmentations[4].[0]", "coordinates"),
        ("annotation 1, bboxes", "6 frames, got 5"),
        ("annotation 1, iscrowd",),
        ("annotation 2, segmentations[0].counts", "characters"),
        ("annotation 2, segmentations[1].counts", "inside a count"),
        ("annotation 2, areas[0]",),
        ("annotation 2, length",),
        ("annotation 3, segmentations: expected pixels in at least one frame",),
        ("annotation 4, segmentations", "6 frames, got 5"),
        ("annotation 4, iscrowd",),
        ("annotation 5, video_id", "got 99"),
        ("annotation 5, category_id", "got 98"),
        ("annotations[5].id", "used once"),
        ("annotation 5, category_id", "got 97"),
        ("annotation 5, segmentations: expected a list",),
        ("annotations[6]", "an object"),
        ("video 2 (first), file_names[0]", "used once", "of video 1 (first)"),
        ("video 2 (first), file_names[5]", "used once", "file_names[4] of video 2"),
    ]
    for parts in expected:
        assert named(defects, *parts), (parts, defects)
    assert len(defects) == len(expected), "\n".join(defects)
    assert all(str(root / "instances.json") in line for line in defects)
    assert all(len(line) < 600 for line in defects)
    assert warnings == []


def test_every_defect_of_the_images_is_named(write, annotations):
    root = write(annotations, images="JPEGImages")
    images = root / "JPEGImages"
    (images / "first/00000.jpg").unlink()
    (images / "first/00005.jpg").write_bytes(b"")
    whole = (images / "second/00010.jpg").read_bytes()
    (images / "second/00010.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (64, 50)).save(images / "second/00015.jpg")
    defects, warnings, _ = check(root)
    expected = [
        ("first/00000.jpg, video first", "No such file"),
        ("first/00005.jpg, video first", "whole image"),
        ("second/00010.jpg, video second", "truncated"),
        ("second/00015.jpg, video second", "expected (48, 64)", "got (50, 64)"),
    ]
    for parts in expected:
        assert named(defects, *parts), (parts, defects)
    assert (len(defects), warnings) == (len(expected), [])


def test_numbers_unlike_the_masks_are_warnings(write, annotations):
    first, second, third = annotations["annotations"]
    first["bboxes"][1] = [2, 4, 30, 16]
    first["bboxes"][3] = None
    first["areas"][1] = 400  # of 320
    second["bboxes"][2] = [1, 1, 5, 5]  # where there is no mask
    second["areas"][0] += 1  # within what tools differ by
    second["bboxes"][0][2] -= 1
    third["id"] = 0
    defects, warnings, _ = check(write(annotations, images="JPEGImages"))
    assert defects == []
    assert len(warnings) == 4, warnings
    assert named(warnings, "annotation 1, bboxes[1]", "20, 16]", "1 more frame")
    assert named(warnings, "annotation 1, areas[1]: expected 320,", "got 400")
    assert named(warnings, "annotation 2, bboxes[2]: expected null", "[1, 1, 5, 5]")
    assert named(warnings, "annotation 0, id: expected 1 or more")


def test_areas_of_polygons_may_differ_by_their_outline(write, annotations):
    first = annotations["annotations"][0]
    first["segmentations"][0] = [[2, 2, 22, 2, 22, 18, 2, 18]]
    first["bboxes"][0] = [2, 2, 20, 16]
    for area, number in ((320 + 30, 0), (320 + 60, 1)):
        first["areas"][0] = area
        defects, warnings, _ = check(write(deepcopy(annotations)))
        assert len(defects) == 2 * LENGTH  # no images
        assert len(warnings) == number


def test_a_polygon_alone_is_read_but_cannot_be_scored(write, annotations):
    first = annotations["annotations"][0]
    first["segmentations"][0] = [2, 4, 22, 4, 22, 20, 2, 20]
    first["bboxes"][0] = first["areas"][0] = None
    defects, warnings, _ = check(write(annotations, images="JPEGImages"))
    assert defects == []
    assert named(warnings, "annotation 1, segmentations: expected lists of polygons")


@pytest.mark.parametrize("text", ['{"videos": [', "[1]", ""])
def test_an_unreadable_file_is_one_error(write, text):
    with pytest.raises(DataError, match="JSON"):
        check(write(text))


def test_truth_may_be_missing(write, annotations):
    del annotations["annotations"]
    defects, warnings, checked = check(write(annotations, images="JPEGImages"))
    assert (defects, warnings) == ([], [])
    assert tuple(count(checked.content)[-1]) == ("all", 0, 0, 0)

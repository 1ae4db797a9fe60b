"""Every defect of an annotation file is an error that says where it is."""

import json

import pytest

from data_pipeline.checks.folder import check_folder
from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.errors import DataError

FIRST = ("annotations", 0)
RLE = (*FIRST, "segmentations", 2)

# Where, what is put there, and what the message must say beside the file.
DEFECTS = [
    (("videos",), None, "videos: expected a list"),
    (("videos",), [], "at least one"),
    (("videos", 0), 3, r"videos\[0\].*object"),
    (("videos", 0, "id"), "1", r"videos\[0\].id.*whole number, got 1"),
    (("videos", 1, "id"), 1, r"videos\[1\].id.*used once, got 1"),
    (("videos", 0, "height"), 48.0, "video 1, height"),
    (("videos", 0, "height"), None, "video 1, height"),
    (("videos", 0, "width"), 0, "video 1, width"),
    (("videos", 0, "width"), 10**9, "video 1, width.*1 to 16384"),
    (("videos", 0, "file_names"), [], "video 1, file_names"),
    (("videos", 0, "file_names"), "a.jpg", "file_names: expected a list"),
    (("videos", 0, "file_names", 2), None, r"file_names\[2\]"),
    (("videos", 0, "file_names", 2), "../../etc/passwd", r"file_names\[2\].*inside"),
    (("videos", 0, "file_names", 2), "/etc/passwd", r"file_names\[2\].*inside"),
    (("videos", 0, "file_names", 2), "a\\..\\b", r"file_names\[2\].*inside"),
    (("videos", 0, "length"), 7, "video 1, length.*6, got 7"),
    (("categories",), {}, "categories: expected a list"),
    (("categories",), [], "categories.*at least one"),
    (("categories", 1, "id"), 7, r"categories\[1\].id.*used once"),
    (("categories", 1, "name"), 5, r"categories\[1\].name"),
    (("annotations",), {}, "annotations: expected a list"),
    (FIRST, [], r"annotations\[0\].*object"),
    ((*FIRST, "id"), 3, r"annotations\[2\].id.*used once, got 3"),
    ((*FIRST, "id"), True, r"annotations\[0\].id"),
    ((*FIRST, "video_id"), 99, "annotation 1, video_id.*got 99"),
    ((*FIRST, "category_id"), 1, "annotation 1, category_id.*got 1"),
    ((*FIRST, "category_id"), [7], "annotation 1, category_id"),
    ((*FIRST, "iscrowd"), "no", r"video 1 \(first\), annotation 1, iscrowd"),
    ((*FIRST, "iscrowd"), 2, "iscrowd.*0 or 1"),
    ((*FIRST, "height"), 64, "annotation 1, height.*48, as the video, got 64"),
    ((*FIRST, "length"), 5, "annotation 1, length"),
    ((*FIRST, "segmentations"), [None] * 5, "6 frames, got 5 entries"),
    ((*FIRST, "segmentations"), None, "segmentations: expected a list"),
    ((*FIRST, "bboxes"), [None] * 7, "bboxes.*6 frames, got 7"),
    ((*FIRST, "bboxes", 1), [1, 2, 3], r"bboxes\[1\]"),
    ((*FIRST, "bboxes", 1), [1, 2, 3, "4"], r"bboxes\[1\]"),
    ((*FIRST, "areas", 1), "large", r"areas\[1\]"),
    ((*FIRST, "areas"), 4, "areas: expected a list"),
    ((*FIRST, "occlusion"), ["much"] * 6, r"occlusion\[0\].*got much"),
    ((*FIRST, "occlusion"), [None], "occlusion.*6 frames"),
    (RLE, 5, r"segmentations\[2\]: expected null, run lengths"),
    (RLE, {}, r"segmentations\[2\].size"),
    ((*RLE, "size"), [64, 48], r"segmentations\[2\].size.*\[48, 64\], got \[64, 48\]"),
    ((*RLE, "counts"), None, r"segmentations\[2\].counts"),
    ((*RLE, "counts"), [3, 4], r"segmentations\[2\].counts.*add up.*3072, got 7"),
    ((*RLE, "counts"), [3073, -1], r"segmentations\[2\].counts.*got 3073"),
    ((*RLE, "counts"), "zzz\x00", r"segmentations\[2\].counts.*characters"),
    ((*RLE, "counts"), "Zeiß", r"segmentations\[2\].counts.*characters"),
    ((*RLE, "counts"), "", r"segmentations\[2\].counts.*add up"),
    (RLE, [], r"segmentations\[2\].*at least one polygon"),
    (RLE, [[1, 1, 5, 5]], r"segmentations\[2\].\[0\].*3 points"),
    (RLE, [[1, 1, 5, 5, 3, 1, 2]], r"segmentations\[2\].\[0\].*3 points"),
    (RLE, [[1, 1, 5, 5, 3, "1"]], r"segmentations\[2\].\[0\].*finite"),
    (RLE, [[1, 1, 5, 5, 3, float("nan")]], r"segmentations\[2\].\[0\].*finite"),
    (RLE, [[1, 1, 5, 5, 3, 1e9]], r"segmentations\[2\].\[0\].*coordinates"),
]


@pytest.mark.parametrize(("place", "value", "message"), DEFECTS)
def test_a_defect_is_named(write, annotations, place, value, message):
    target = annotations
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    root = write(annotations)
    with pytest.raises(DataError, match=message) as error:
        YouTubeVis(root, "train")
    assert "instances.json" in str(error.value)
    assert len(str(error.value)) < 600
    found = []
    check_folder(root, "train", defect=found.append, warning=found.append)
    assert str(error.value) in map(str, found)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_off_says_where(write, annotations, share):
    text = json.dumps(annotations)
    cut = text[: int(len(text) * share)]
    with pytest.raises(DataError, match=r"JSON.*character \d+.*cut off"):
        YouTubeVis(write(cut), "train")


@pytest.mark.parametrize("text", ["[1, 2]", "null", '"x"'])
def test_the_top_level_is_an_object(write, text):
    with pytest.raises(DataError, match="top level.*JSON object"):
        YouTubeVis(write(text), "train")


def test_broken_text_is_reported(write, tmp_path):
    write("{}")
    for bad, message in (
        (b"\xff\xfe{", "UTF-8"),
        (b"[" * 200_000, "nested|JSON"),
        (b"9" * 5_000, "JSON.*digits"),
    ):
        (tmp_path / "instances.json").write_bytes(bad)
        with pytest.raises(DataError, match=message):
            YouTubeVis(tmp_path, "train")


def test_sizes_are_bounded(write, annotations):
    annotations["videos"][0].update(height=16_000, width=16_000)
    with pytest.raises(DataError, match="pixels a frame, got"):
        YouTubeVis(write(annotations), "train")

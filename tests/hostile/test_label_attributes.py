"""Attributes of labels that say where, when or who: applied, or refused by name."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipeline.convert.prepare import prepare
from data_pipeline.errors import DataError
from tests.hostile.test_coco_labels import write_coco
from tests.hostile.test_labels import (
    HEIGHT,
    WIDTH,
    block,
    corners,
    hits,
    masks_of,
    prepared,
    write_davis,
    write_frames,
    write_labelme,
    write_xml,
    xml_box,
    xml_track,
)

FIRST = xml_box(0, 0, 'keyframe="1"')


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        (xml_track(FIRST + xml_box(1, 1, 'outside="true"')), "outside: expected 0 or"),
        (xml_track(FIRST + xml_box(1, 1, 'outside="2"')), "outside: expected 0 or 1"),
        (xml_track(FIRST + '<circle frame="1" r="4"/>'), "shape: .* got circle"),
        (xml_track(FIRST + xml_box(3, 3, 'keyframe="1"')), "frame from 0 to 3, or out"),
        (xml_track(FIRST, 'task_id="1"') + xml_track(FIRST), "task_id: .*got 2 tasks"),
        (xml_track(xml_box(0, 0, 'rotation="0,45"')), "rotation: expected one number"),
        (xml_track(FIRST.replace('xtl="4"', 'xtl="4,5"')), "xtl: expected one number"),
        (xml_track(FIRST, 'group_id=""'), "annotation 0, group_id: expected a whole"),
        (
            xml_track(
                '<mask frame="0" left="0" top="0" width="4" height="2" rle=".5,8"/>'
            ),
            "rle: expected run lengths that add up .*got 8.5",
        ),
        ("", "expected at least one labelled object"),
    ],
)
def test_cvat(tmp_path, tracks, message):
    write_xml(tmp_path, tracks)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path)


def test_an_object_of_cvat_may_pause(tmp_path):
    shapes = FIRST + xml_box(1, 1, 'keyframe="1" outside="1"')
    shapes += xml_box(3, 3, 'keyframe="1"') + "<attribute name='a'>b</attribute>"
    write_xml(tmp_path, xml_track(shapes, 'group_id="01"'))
    assert masks_of(prepared(tmp_path)).any((2, 3)).tolist() == [[1, 0, 0, 1]]


@pytest.mark.parametrize("encoding", ["xyz", "utf-7"])
def test_an_encoding_that_the_parser_does_not_know(tmp_path, encoding):
    write_xml(tmp_path, xml_track(FIRST))
    text = f'<?xml version="1.0" encoding="{encoding}"?><annotations/>'
    (tmp_path / "in/annotations.xml").write_text(text)
    with pytest.raises(DataError, match=r"annotations\.xml.*expected XML.*encoding"):
        prepared(tmp_path)


def coco_of_two(folder, rows=({}, {}), images=({}, {}), **more):
    """Two frames of one object; `rows` and `images` change their entries."""
    names = ["0.jpg", "1.jpg"]
    write_frames(folder / "in/images", names)
    content = write_coco(folder / "in", names) | more
    for key, changes in (("annotations", rows), ("images", images)):
        for entry, change in zip(content[key], changes, strict=True):
            entry.update(change)
    (folder / "in/annotations.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("field", "value", "crowd"),
    [("iscrowd", 1, True), ("ignore", 1, True), ("ignore", True, True),
     ("iscrowd", None, False), ("ignore", 0, False)],
)  # fmt: skip
def test_crowds_and_regions_to_ignore(tmp_path, field, value, crowd):
    coco_of_two(tmp_path, [{field: value}] * 2)
    (track,) = prepared(tmp_path).truth(0).crowd
    assert bool(track) is crowd


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(rows=[{"iscrowd": "1"}] * 2), "iscrowd: expected 0 or 1, got 1"),
        (dict(rows=[{"ignore": 2}] * 2), "ignore: expected 0 or 1, got 2"),
        (dict(rows=[{"ignore": 1}, {}]), "iscrowd or ignore: expected 1, as in the"),
        (dict(rows=[{"rotation": 30}, {}]), "rotation: expected 0, as the direction"),
        (dict(rows=[{"image_id": True}, {}]), "image_id: expected the id of an image"),
        (dict(rows=[{"category_id": True}] * 2), "category_id: expected the id of a c"),
        (
            dict(videos=[dict(id=1, name="a"), dict(id=2, name="a")]),
            r"videos\[1\]: expected each id and name once",
        ),
        (
            dict(videos=[dict(id=1)], images=[{"video_id": 1}, {"video_id": 2}]),
            "image 1, video_id: expected the id of a video, got 2",
        ),
    ],
)  # fmt: skip
def test_coco(tmp_path, changes, message):
    coco_of_two(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path)


@pytest.mark.parametrize("key", ["frame_number", "frame_num"])
def test_frames_of_coco_are_in_the_order_of_their_numbers(tmp_path, key):
    coco_of_two(tmp_path, images=[{key: 8}, {key: 3}])
    data = prepared(tmp_path)
    assert [data.path(0, t).name for t in range(2)] == ["1.jpg", "0.jpg"]
    assert hits(data) == 1


def relabel(folder, changes):
    """Changes the shapes of a labelme folder, one by frame."""
    for t, change in enumerate(changes):
        file = folder / f"{t}.json"
        content = json.loads(file.read_text())
        content["shapes"][0].update(change)
        file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "tracks"),
    [
        ([{"group_id": value} for value in (1, "1", "01")], 1),
        ([{"group_id": None, "track_id": value} for value in (4, 4, "4")], 1),
        ([{"group_id": None, "track_id": value} for value in (4, 5, 4)], 2),
        ([{"track_id": "1"}] * 3, 1),
    ],
)
def test_identities_of_labelme(tmp_path, changes, tracks):
    write_labelme(
        tmp_path / "in/clip", lambda t: np.reshape(corners(t), (2, 2)).tolist()
    )
    relabel(tmp_path / "in/clip", changes)
    assert len(masks_of(prepared(tmp_path))) == tracks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_id": ""}, "group_id: expected the number of the object"),
        ({"track_id": 2}, "track_id: expected 1, as in group_id, got 2"),
    ],
)
def test_labelme(tmp_path, change, message):
    write_labelme(
        tmp_path / "in/clip", lambda t: np.reshape(corners(t), (2, 2)).tolist()
    )
    relabel(tmp_path / "in/clip", [change] * 3)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path)


def test_frames_of_labelme_are_in_the_order_of_the_images(tmp_path):
    folder = tmp_path / "in/clip"
    write_labelme(folder, lambda t: np.reshape(corners(t), (2, 2)).tolist())
    (folder / "0.json").rename(folder / "last.json")
    data = prepared(tmp_path)
    assert [data.path(0, t).name for t in range(3)] == ["0.jpg", "1.jpg", "2.jpg"]
    np.testing.assert_array_equal(masks_of(data)[0], [block(t) for t in range(3)])


def test_the_class_of_mots_is_that_of_the_id(tmp_path):
    write_frames(tmp_path / "in/images/0002", ["000000.png"])
    (tmp_path / "in/instances_txt").mkdir()
    text = f"0 2001 1 {HEIGHT} {WIDTH} 0"
    (tmp_path / "in/instances_txt/0002.txt").write_text(text)
    with pytest.raises(DataError, match="line 1, class: expected 2, as of id 2001"):
        prepared(tmp_path)


def test_masks_of_davis_are_png(tmp_path):
    write_davis(tmp_path / "in", block(0).astype(np.uint8))
    path = tmp_path / "in/Annotations/480p/clip/00001.png"
    Image.fromarray(block(0).astype(np.uint8)).save(path, "JPEG")
    with pytest.raises(DataError, match=r"00001\.png: expected a PNG.*got JPEG"):
        prepared(tmp_path)


@pytest.mark.parametrize("text", ["clip\nclip\n", "\ufeffclip\r\n"])
def test_a_list_of_videos(tmp_path, text):
    write_davis(tmp_path / "in", block(0).astype(np.uint8))
    (tmp_path / "in/ImageSets").mkdir()
    (tmp_path / "in/ImageSets/train.txt").write_bytes(text.encode())
    assert len(prepared(tmp_path).videos) == 1


def test_a_link_to_the_folder_itself(tmp_path):
    write_xml(tmp_path, xml_track(FIRST))
    (tmp_path / "in/again").symlink_to(tmp_path / "in")
    with pytest.raises(DataError, match="again: expected no link to a folder that"):
        prepare(tmp_path / "in", tmp_path / "out", "train")


def test_what_is_not_used_is_said(tmp_path):
    """A label file of YOLO without an image, and a track of CVAT that is never seen."""
    write_frames(tmp_path / "in/train/images", ["0.jpg"])
    (tmp_path / "in/train/labels").mkdir()
    for name in ("0.txt", "7.txt", "classes.txt", "train.txt"):
        text = "\ufeff0 0.1 0.1 0.5 0.1 0.5 0.5 3\n"  # as Windows writes it
        (tmp_path / "in/train/labels" / name).write_text(text)
    (tmp_path / "in/data.yaml").write_text("train: train/images\nnames: [a]\n")
    outcome = prepare(tmp_path / "in", tmp_path / "out", "train")
    expected = ("1 label files without an image of the split",)
    assert outcome.prepared.left_out == expected

    hidden = xml_track(xml_box(1, 1, 'outside="1"'))
    write_xml(tmp_path / "b", xml_track(FIRST) + hidden)
    outcome = prepare(tmp_path / "b/in", tmp_path / "c", "train")
    assert outcome.prepared.left_out == ("1 objects without a pixel in any frame",)

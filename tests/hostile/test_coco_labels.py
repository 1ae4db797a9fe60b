"""Labels as tools write them, which the COCO reader applies or rejects."""

import json

import numpy as np
import pytest

from data_pipeline.errors import DataError
from tests.hostile.test_labels import (
    HEIGHT,
    WIDTH,
    block,
    hits,
    masks_of,
    polygon,
    prepared,
    write_frames,
)


def write_coco(folder, names, *, file="annotations.json", **changes):
    entries = [
        {"id": t, "width": WIDTH, "height": HEIGHT, "file_name": name}
        for t, name in enumerate(names)
    ]
    rows = [
        {"id": t, "image_id": t, "category_id": 1, "segmentation": [polygon(t)]}
        | {"bbox": [1, 1, 2, 2], "track_id": 5}
        | changes
        for t in range(len(names))
    ]
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    content = dict(images=entries, annotations=rows, categories=[dict(id=1, name="b")])
    (folder / file).write_text(json.dumps(content))
    return content


@pytest.mark.parametrize("split", ["default", "train"])
def test_identities_in_attributes(tmp_path, split):
    """As CVAT exports 'COCO 1.0', where the name 'default' is that of no split."""
    names = [f"frame_{t:06d}.PNG" for t in range(4)]
    write_frames(tmp_path / "in/images/default", names)
    file = "annotations/instances_default.json"
    content = write_coco(tmp_path / "in", names, file=file)
    rows = []
    for row in content["annotations"]:
        del row["track_id"]
        here = row | {"attributes": {"occluded": False, "track_id": 0}}
        other = {"id": row["id"] + 9, "attributes": {"track_id": 1}}
        rows += [here, here | other]
    content["annotations"] = rows
    (tmp_path / "in" / file).write_text(json.dumps(content))
    data = prepared(tmp_path, split)
    assert masks_of(data).shape == (2, 4, HEIGHT, WIDTH)
    assert hits(data) == 1


def test_an_object_without_identity_is_refused(tmp_path):
    names = ["0.jpg"]
    write_frames(tmp_path / "in/images", names)
    content = write_coco(tmp_path / "in", names, attributes={"occluded": False})
    del content["annotations"][0]["track_id"]
    (tmp_path / "in/annotations.json").write_text(json.dumps(content))
    with pytest.raises(
        DataError, match="instance_id or track_id, also in attr.*--link"
    ):
        prepared(tmp_path)


def identified_coco(folder, *identities):
    """One annotation in a frame, with these fields."""
    names = [f"{t}.jpg" for t in range(len(identities))]
    write_frames(folder / "images", names)
    content = write_coco(folder, names)
    for row, fields in zip(content["annotations"], identities, strict=True):
        del row["track_id"]
        row.update(fields)
    (folder / "annotations.json").write_text(json.dumps(content))


def inner(**fields):
    return {"attributes": fields}


@pytest.mark.parametrize(
    "identities",
    [
        [{"track_id": 1}, {"track_id": "1"}, {"track_id": "01"}],
        [{"track_id": 0}, {"track_id": "0"}, {"track_id": "000"}],
        [{"track_id": "a1"}] * 3,
        [{"instance_id": None} | inner(track_id=k) for k in (4, 4, "4")],
        [{"instance_id": k} | inner(track_id=4) for k in (None, 9, "9")],
        [{"instance_id": 7, "track_id": 1}, {"track_id": 1}, {"track_id": 1}],
    ],
)
def test_the_same_identity_in_several_forms(tmp_path, identities):
    identified_coco(tmp_path / "in", *identities)
    masks = masks_of(prepared(tmp_path))
    np.testing.assert_array_equal(masks, [[block(t) for t in range(3)]])


def test_names_are_other_identities_than_numbers(tmp_path):
    values = ("a", "1", "A", 2, "-2", "1a", "²")
    identified_coco(tmp_path / "in", *({"track_id": value} for value in values))
    assert len(masks_of(prepared(tmp_path))) == len(values)


@pytest.mark.parametrize(
    ("identities", "message"),
    [
        (
            [{"instance_id": k, "track_id": 5} for k in (1, 2, 3)],
            "annotation 1, track_id and instance_id: expected one instance_id for"
            " track_id 5, got 1 and 2",
        ),
        (
            [{"instance_id": 1} | inner(track_id=k) for k in (5, 5, 6)],
            "annotation 2, instance_id and attributes.track_id: expected one"
            " attributes.track_id for instance_id 1, got 5 and 6",
        ),
        (
            [{"instance_id": 1}, {"track_id": 1}],
            "annotation 1, instance_id: expected this field, as in the first"
            " annotation of the video, got track_id only",
        ),
        (
            [{"track_id": None} | inner(track_id=None)],
            "instance_id or track_id, .*, got 1 label without",
        ),
        ([{"instance_id": 1, "track_id": [2]}], "0, track_id: expected a whole number"),
        ([inner(track_id=2.0)], "attributes.track_id: expected a whole number"),
        ([{"track_id": True}], "track_id: expected a whole number or a name, got True"),
        ([{"track_id": ""}], "track_id: expected a whole number or a name"),
    ],
)
def test_identities_that_contradict_each_other_are_refused(
    tmp_path, identities, message
):
    identified_coco(tmp_path / "in", *identities)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path)
    assert not (tmp_path / "out/train").exists()


def test_videos_have_identities_of_their_own(tmp_path):
    """A field that one video lacks, or that has other partners there."""
    names = ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"]
    write_frames(tmp_path / "in/images", names)
    content = write_coco(tmp_path / "in", names)
    for t, row in enumerate(content["annotations"]):
        row.update({"track_id": 1, "instance_id": t // 2})
    del content["annotations"][3]["instance_id"]
    (tmp_path / "in/annotations.json").write_text(json.dumps(content))
    data = prepared(tmp_path)
    assert [len(masks_of(data, video)) for video in range(2)] == [1, 1]


def test_backslashes_separate_folders(tmp_path):
    names = [f"{t:04d}.jpg" for t in range(3)]
    write_frames(tmp_path / "in/images", names)
    write_coco(tmp_path / "in", [f"images\\{name}" for name in names])
    data = prepared(tmp_path)
    assert data.videos[0].length == 3
    assert hits(data) == 1


@pytest.mark.parametrize("name", ["..\\0.jpg", "C:\\0.jpg", "\\0.jpg", "a\\..\\..\\b"])
def test_backslashes_do_not_lead_out(tmp_path, name):
    write_frames(tmp_path / "in/images", ["0.jpg"])
    write_coco(tmp_path / "in", [name])
    with pytest.raises(DataError, match="file_name: expected a path inside"):
        prepared(tmp_path)


def test_one_flat_list_is_one_polygon(tmp_path):
    names = [f"{t:04d}.jpg" for t in range(3)]
    write_frames(tmp_path / "in/images", names)
    content = write_coco(tmp_path / "in", names)
    for t, row in enumerate(content["annotations"]):
        row["segmentation"] = polygon(t)
    (tmp_path / "in/annotations.json").write_text(json.dumps(content))
    data = prepared(tmp_path)
    assert hits(data) == 1
    assert masks_of(data).sum() == 3 * 14 * 12


@pytest.mark.parametrize("nothing", [[], None])
@pytest.mark.parametrize(("box", "got"), [([1, 1, 2, 2], "a box only"), (0, "nothing")])
def test_an_object_without_a_mask_is_refused(tmp_path, nothing, box, got):
    write_frames(tmp_path / "in/images", ["0.jpg"])
    write_coco(tmp_path / "in", ["0.jpg"], segmentation=nothing, bbox=box)
    expected = f"segmentation: expected polygons or run lengths, got {got}"
    with pytest.raises(DataError, match=expected):
        prepared(tmp_path)


def numbered_coco(folder, numbers, key="frame_id"):
    """The block moves on in the order of `numbers`; None: the image has no such field.

    The names of the files have the opposite order.
    """
    names = [f"{9 - t}.jpg" for t in range(len(numbers))]
    write_frames(folder / "images", names)
    content = write_coco(folder, names)
    for entry, number in zip(content["images"], numbers, strict=True):
        if number is not None:
            entry[key] = number
    (folder / "annotations.json").write_text(json.dumps(content))


@pytest.mark.parametrize("key", ["frame_id", "frame_index"])
@pytest.mark.parametrize("numbers", [[7, 8, 9], ["8", "9", "10"], [8, "09", 20]])
def test_frames_are_in_the_order_of_their_numbers(tmp_path, numbers, key):
    numbered_coco(tmp_path / "in", numbers, key)
    masks = masks_of(prepared(tmp_path))
    np.testing.assert_array_equal(masks[0], [block(t) for t in range(3)])


def test_frames_without_numbers_are_in_the_order_of_their_names(tmp_path):
    numbered_coco(tmp_path / "in", [None] * 3)
    masks = masks_of(prepared(tmp_path))
    np.testing.assert_array_equal(masks[0], [block(t) for t in (2, 1, 0)])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([4, None, 6], "image 1, frame_id: expected the number .*, got nothing"),
        (
            [4, 5, 4],
            "image 2, frame_id: expected a number used once .*, got 4, as image 0",
        ),
        ([4, "04", 5], "image 1, frame_id: .* used once .*, got 4, as image 0 has"),
        ([4, 5, True], "image 2, frame_id: expected a whole number, got True"),
        ([4, 5.5, 6], "image 1, frame_id: expected a whole number, got 5.5"),
    ],
)
def test_numbers_that_order_no_frames_are_refused(tmp_path, numbers, message):
    numbered_coco(tmp_path / "in", numbers)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path)
    assert not (tmp_path / "out/train").exists()


@pytest.mark.parametrize("number", ["", "x", "-1", "1.0", "²", [1], "9" * 5000])
def test_a_number_of_a_frame_is_whole(tmp_path, number):
    numbered_coco(tmp_path / "in", [1, 2])
    file = tmp_path / "in/annotations.json"
    content = json.loads(file.read_text())
    content["images"][1]["frame_id"] = number
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="image 1, frame_id: expected a whole number"):
        prepared(tmp_path)


@pytest.mark.parametrize(("others", "fits"), [([1, 5, 6], True), ([2, 1, 3], False)])
def test_two_numbers_of_a_frame_say_the_same(tmp_path, others, fits):
    numbered_coco(tmp_path / "in", [7, 8, 9])
    file = tmp_path / "in/annotations.json"
    content = json.loads(file.read_text())
    for entry, number in zip(content["images"], others, strict=True):
        entry["frame_index"] = number
    file.write_text(json.dumps(content))
    if fits:
        assert hits(prepared(tmp_path)) == 1
        return
    message = "frame_id and frame_index: expected the same order, got images 0 and 1"
    with pytest.raises(DataError, match=message):
        prepared(tmp_path)

"""Other layouts, converted and read again: the masks and identities written out."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from data_pipeline.convert.prepare import prepare
from data_pipeline.datasets.ytvis import YouTubeVis
from tests.data_pipeline.convert import foreign_layouts as layouts
from tests.data_pipeline.convert.foreign_layouts import LENGTH, SHAPES, true_tracks

WRITERS = {
    "ytvis 2021": (lambda root: layouts.as_ytvis(root, "2021"), "ytvis"),
    "ytvis inside": (lambda root: layouts.as_ytvis(root, "inside"), "ytvis"),
    "ovis": (lambda root: layouts.as_ytvis(root, "ovis"), "ytvis"),
    "davis": (layouts.as_davis, "davis"),
    "mots pngs": (layouts.as_mots_pngs, "mots"),
    "mots texts": (layouts.as_mots_texts, "mots"),
    "coco": (layouts.as_coco, "coco"),
    "labelme": (layouts.as_labelme, "labelme"),
    "cvat": (layouts.as_cvat, "cvat"),
}


def expected_category(name, category, number):
    if name.startswith("mots"):
        return ("car", "pedestrian")[number % 2]
    return "thing" if name == "davis" else category


def tracks_of(dataset, index):
    """Category and masks of each track, as `true_tracks`."""
    truth = dataset.truth(index)
    empty = np.zeros((layouts.HEIGHT, layouts.WIDTH), bool)
    return [
        (
            dataset.categories[label].name,
            [empty if run is None else coco.decode(run).astype(bool) for run in runs],
        )
        for label, runs in zip(truth.labels, truth.segmentations, strict=True)
    ]


@pytest.mark.parametrize("name", WRITERS)
def test_round_trip(name, tmp_path):
    write, layout = WRITERS[name]
    write(tmp_path / "in")
    words = dict(split="train", category="thing")
    outcome = prepare(tmp_path / "in", tmp_path / "out", **words)
    assert (outcome.found.layout, outcome.written) == (layout, True)
    dataset = YouTubeVis(tmp_path / "out", "train")
    assert len(dataset.videos) == 2
    for index in range(2):
        expected = [
            (expected_category(name, category, number), masks)
            for number, (category, masks) in enumerate(true_tracks(index))
        ]
        if name.startswith("mots"):  # by id, thus by class
            expected.sort(key=lambda track: track[0])
        if name in ("labelme", "coco"):  # in the order in which they appear
            expected.sort(key=lambda t: min(k for k in range(LENGTH) if t[1][k].any()))
        found = tracks_of(dataset, index)
        assert [label for label, _ in found] == [label for label, _ in expected]
        for (_, ours), (_, theirs) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        frames = np.arange(LENGTH)
        difference = dataset.read_frames(index, frames).astype(int)
        difference -= SHAPES.read_frames(index, frames)
        assert np.abs(difference).mean() < 12  # JPEGs; other frames differ far more
    again = prepare(tmp_path / "in", tmp_path / "out", **words)
    assert not again.written
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["train"]


def test_ids_occlusion_and_missing_truth_stay(tmp_path):
    layouts.as_ytvis(tmp_path / "in", "2021")
    file = tmp_path / "in/train/instances.json"
    content = json.loads(file.read_text())
    content["videos"][0]["id"] = 30
    for track in content["annotations"]:
        track["id"] += 50
        track["video_id"] = 30 if track["video_id"] == 1 else 2
    file.write_text(json.dumps(content))
    prepare(tmp_path / "in", tmp_path / "out", "train")
    written = json.loads((tmp_path / "out/train/instances.json").read_text())
    assert written["annotations"] == content["annotations"]
    assert written["videos"] == content["videos"]
    assert written["categories"] == content["categories"]
    content["annotations"] = None
    file.write_text(json.dumps(content))
    prepare(tmp_path / "in", tmp_path / "bare", "train")
    assert "annotations" not in json.loads(
        (tmp_path / "bare/train/instances.json").read_text()
    )


def test_images_are_linked_or_copied_or_encoded_anew(tmp_path):
    layouts.as_davis(tmp_path / "in")
    folder = tmp_path / "in/JPEGImages/480p" / SHAPES.videos[0].name
    bitmap = folder / "00002.bmp"
    Image.open(folder / "00002.jpg").save(bitmap)
    (folder / "00002.jpg").unlink()
    for copy in (False, True):
        output = tmp_path / f"out{copy}"
        prepare(tmp_path / "in", output, "train", copy=copy)
        target = output / "train/JPEGImages" / SHAPES.videos[0].name
        for name in ("00001.jpg", "00002.jpg"):
            linked = (target / name).stat().st_nlink > 1
            assert linked == (not copy and name == "00001.jpg")
        with Image.open(target / "00002.jpg") as image:
            assert image.format == "JPEG"
    assert bitmap.is_file()


def test_davis_2016_void_and_unlabelled_frames(tmp_path):
    layouts.as_davis(tmp_path / "in")
    first, second = (tmp_path / "in/Annotations/480p" / v.name for v in SHAPES.videos)
    for file in first.iterdir():
        object_one = np.asarray(Image.open(file)) == 1
        Image.fromarray(object_one.astype(np.uint8) * 255).save(file)
    ids = np.asarray(Image.open(second / "00000.png")).copy()
    ids[0] = 255
    Image.fromarray(ids).save(second / "00000.png")
    (second / "00003.png").unlink()
    outcome = prepare(tmp_path / "in", tmp_path / "out", "train")
    assert outcome.prepared.left_out == ("1 frames without an annotation",)
    dataset = YouTubeVis(tmp_path / "out", "train")
    (only,) = tracks_of(dataset, 0)
    np.testing.assert_array_equal(only[1], true_tracks(0)[0][1])
    assert dataset.videos[1].length == LENGTH - 1
    assert len(dataset.tracks[1]) == len(true_tracks(1))


def test_shapes_of_cvat_and_labelme(tmp_path):
    """Polygons and boxes of integer corners have the pixels between them."""
    for name in ("cvat", "labelme"):
        layouts.write_frames(tmp_path / name, 0, "{}.png")
    boxes = 'xtl="2" ytl="3" xbr="12" ybr="9"'
    (tmp_path / "cvat/annotations.xml").write_text(
        f'<annotations><track id="0" label="car"><box frame="0" {boxes}/>'
        '<box frame="1" outside="1" xtl="2" ytl="3" xbr="12" ybr="9"/>'
        '<polygon frame="2" points="2,3;12,3;12,9;2,9"/></track></annotations>'
    )
    for t in range(LENGTH):
        kind, points = "rectangle", [[2, 3], [12, 9]]
        if t == 2:
            kind, points = "polygon", [[2, 3], [12, 3], [12, 9], [2, 9]]
        shape = {"label": "car", "shape_type": kind, "points": points}
        shapes = [shape] if t in (0, 2) else []
        content = {"imagePath": f"..\\x\\{t}.png", "shapes": shapes}
        (tmp_path / f"labelme/{t}.json").write_text(json.dumps(content))
    expected = np.zeros((LENGTH, layouts.HEIGHT, layouts.WIDTH), bool)
    expected[[0, 2], 3:9, 2:12] = True
    for name in ("cvat", "labelme"):
        prepare(tmp_path / name, tmp_path / "out", split=name, layout=name)
        ((category, masks),) = tracks_of(YouTubeVis(tmp_path / "out", name), 0)
        assert category == "car"
        np.testing.assert_array_equal(masks, expected)


def test_nothing_is_left_of_a_failure_and_nothing_overwritten(tmp_path):
    layouts.as_davis(tmp_path / "in")
    bad = tmp_path / "in/JPEGImages/480p" / SHAPES.videos[1].name / "00003.jpg"
    bad.write_bytes(b"no image")
    with pytest.raises(ValueError, match="00003.jpg: expected a whole image"):
        prepare(tmp_path / "in", tmp_path / "out", "train")
    assert not any((tmp_path / "out").iterdir())
    layouts.write_frames(bad.parent, 1)
    (tmp_path / "out/train").mkdir()
    (tmp_path / "out/train/mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="got one with other annotations"):
        prepare(tmp_path / "in", tmp_path / "out", "train")
    assert os.listdir(tmp_path / "out/train") == ["mine.txt"]
    with pytest.raises(ValueError, match="expected a folder outside of"):
        prepare(tmp_path / "in", tmp_path / "in/out", "train")

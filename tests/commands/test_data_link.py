"""`data prepare --link`: labels of single frames become tracks."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipeline.convert.foreign import ForeignLabel, encode
from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.moving_shapes.dataset import MovingShapes
from tests.command_line import call, error_of
from tests.data_pipeline.convert import foreign_layouts as layouts
from tests.data_pipeline.convert.test_prepare import tracks_of
from tests.own_videos import label_frames
from vis_jax.predict.link_labels import LabelLinker

SIZE = dict(height=48, width=64)
SLOW = MovingShapes("val", num_videos=2, length=6, **SIZE)


def write_export(folder):
    """`in/train/`: frames of two videos, of which the second is listed backwards."""
    for index, video in enumerate(SLOW.videos):
        frames = folder / f"frames/video{index}"
        frames.mkdir(parents=True)
        for t in range(video.length):
            pixels = SLOW.render(index, [t]).images[0]
            Image.fromarray(pixels).save(frames / f"video{index}_{t:06d}.jpg")
    label_frames(folder / "frames", SLOW, folder / "in")
    file = folder / "in/train/_annotations.coco.json"
    content = json.loads(file.read_text())
    content["images"].reverse()
    for image in content["images"][:6]:  # as newer exports have it
        original = image["file_name"].partition("_jpg.rf.")[0]
        image["extra"] = {"name": f"{original}.jpg"}
    file.write_text(json.dumps(content))


def label(frame, x, *, category="car", width=10):
    mask = np.zeros((20, 60), bool)
    mask[5:15, x : x + width] = True
    run = encode(mask)
    assert run is not None
    return ForeignLabel(category, False, frame, run)


def test_labels_take_the_track_that_they_overlap_most():
    link = LabelLinker(min_iou=0.3, max_gap=1)
    assert link([label(0, 2), label(0, 30), label(1, 32), label(1, 4)]) == [1, 2, 2, 1]
    # 2 of 18 pixels of a row are shared: too few.
    assert link([label(0, 2), label(1, 10)]) == [1, 2]
    assert link([label(0, 2), label(1, 2, category="dog")]) == [1, 2]
    # The better of two labels that overlap one track keeps it.
    assert link([label(0, 10), label(1, 14), label(1, 11)]) == [1, 2, 1]
    # Frame 1 without it is bridged, frames 1 and 2 are not.
    assert link([label(0, 2), label(2, 2)]) == [1, 1]
    assert link([label(0, 2), label(3, 2)]) == [1, 2]
    assert link([]) == []
    with pytest.raises(ValueError, match=r"min_iou: expected a number in \(0, 1\]"):
        LabelLinker(min_iou=0)
    with pytest.raises(ValueError, match="max_gap: expected 0 or more frames, got -1"):
        LabelLinker(max_gap=-1)


def test_a_roboflow_export_becomes_tracks(tmp_path):
    write_export(tmp_path)
    words = ("data", "prepare", "--source", tmp_path / "in", "--output")
    message = error_of(*words, tmp_path / "out")
    assert "video video0: expected the identity of each object" in message
    assert "instance_id or track_id, also in attributes, or --link" in message
    outcome = call(*words, tmp_path / "out", "--link")
    assert outcome.code == 0, outcome.err
    assert "coco: train/_annotations.coco.json has a list 'images'" in outcome.out
    assert "left out      category 'toys', which names the project\n" in outcome.out
    dataset = YouTubeVis(tmp_path / "out", "train")
    assert [video.name for video in dataset.videos] == ["video0", "video1"]
    labels = 0
    for index, video in enumerate(SLOW.videos):
        drawn = SLOW.render(index, range(video.length))
        found = tracks_of(dataset, index)
        expected = [
            (SLOW.categories[label].name, masks)
            for label, masks in zip(drawn.labels, drawn.masks, strict=True)
        ]
        assert len(found) == len(expected)
        for name, masks in expected:
            assert any(n == name and np.array_equal(masks, m) for n, m in found)
        labels += int(drawn.masks.any((2, 3)).sum())
    assert f"linked        {labels} labels by overlap\n" in outcome.out
    sheet = tmp_path / "out/train_identities.png"
    assert f"sheet         {sheet}, 2 of 2 videos\n" in outcome.out
    with Image.open(sheet) as image:
        assert image.height > 2 * 180
    # A stricter rule cuts tracks in pieces.
    call(*words, tmp_path / "cut", "--link", "--link_iou=1", "--link_gap=0")
    content = json.loads((tmp_path / "cut/train/instances.json").read_text())
    assert len(content["annotations"]) > sum(map(len, dataset.tracks))
    checked = call("data", "check", "--root", tmp_path / "out")
    assert (checked.code, "warnings      0\n" in checked.out) == (0, True)


def test_what_linking_refuses(tmp_path):
    layouts.as_coco(tmp_path / "in")
    words = ("--source", tmp_path / "in", "--output", tmp_path / "out")
    message = error_of("data", "prepare", *words, "--link")
    assert "expected labels without identities, got those that the coco" in message
    message = error_of("data", "prepare", *words, "--link_gap=1")
    assert "--link_gap: expected --link beside it" in message
    message = error_of("data", "prepare", *words, "--contact_sheet=sheet.jpg")
    assert "--contact_sheet: expected a .png file" in message
    assert not (tmp_path / "out").exists()


def test_a_version_of_roboflow_with_augmentation_is_refused(tmp_path):
    write_export(tmp_path)
    file = tmp_path / "in/train/_annotations.coco.json"
    content = json.loads(file.read_text())
    first = content["images"][0]
    again = first["file_name"].replace(".rf.", ".rf.ff")
    Image.new("RGB", (64, 48)).save(file.parent / again)
    content["images"].append({**first, "id": 99, "file_name": again})
    file.write_text(json.dumps(content))
    words = ("--source", tmp_path / "in", "--output", tmp_path / "out", "--link")
    message = error_of("data", "prepare", *words)
    assert "image 99: expected one image of each frame" in message


def test_labelme_without_groups(tmp_path):
    """Two squares of one label in each frame, and a label that each frame has once."""
    frames = layouts.write_frames(tmp_path / "in/clip", 0, "f{}.png")
    for t, file in enumerate(frames):
        shapes = [
            {
                "label": name,
                "points": [[x, y], [x + 9, y + 9]],
                "shape_type": "rectangle",
            }
            for name, x, y in (
                ("car", 2 + t, 2),
                ("car", 40 - t, 2),
                ("dog", 9 * t, 30),
            )
        ]
        content = {"imagePath": file.name, "shapes": shapes[:: 1 if t % 2 else -1]}
        file.with_suffix(".json").write_text(json.dumps(content))
    words = ("--source", tmp_path / "in", "--output", tmp_path / "out")
    message = error_of("data", "prepare", *words)
    assert "as group_id, or --link, which gives it by overlap, got 8 labels" in message
    outcome = call("data", "prepare", *words, "--link")
    assert outcome.code == 0 and "short  " not in outcome.out
    found = tracks_of(YouTubeVis(tmp_path / "out", "train"), 0)
    left = {
        (name, *(int(np.flatnonzero(mask.any(0))[0]) for mask in masks))
        for name, masks in found
    }
    assert left == {
        ("car", 2, 3, 4, 5),
        ("car", 40, 39, 38, 37),
        ("dog", 0, 9, 18, 27),  # no overlap: the label alone is the identity
    }
    words = (*words[:-1], tmp_path / "strict", "--link", "--link_iou=0.95")
    assert (
        "short         8 of 9 tracks have a single"
        in call("data", "prepare", *words).out
    )


def test_attributes_of_cvat(tmp_path):
    layouts.as_coco(tmp_path / "in")
    file = tmp_path / "in/annotations/train.json"
    content = json.loads(file.read_text())
    entries = content["annotations"]
    for entry in entries:
        track = entry.pop("track_id")
        entry["attributes"] = {"occluded": False, "rotation": 0.0, "track_id": track}
    entries[0]["attributes"]["outside"] = True  # absent there, whatever its mask
    file.write_text(json.dumps(content))
    words = ("--source", tmp_path / "in", "--output")
    assert call("data", "prepare", *words, tmp_path / "out").code == 0
    written = json.loads((tmp_path / "out/train/instances.json").read_text())
    tracks = written["annotations"]
    masks = sum(m is not None for t in tracks for m in t["segmentations"])
    assert masks == len(entries) - 1
    entries[1]["attributes"]["rotation"] = 30.0
    file.write_text(json.dumps(content))
    message = error_of("data", "prepare", *words, tmp_path / "other")
    assert "attributes.rotation: expected 0" in message

"""YOLO with polygons, as Ultralytics, CVAT and Roboflow lay it out."""

import numpy as np
import pytest
from PIL import Image

from data_pipeline.convert.prepare import prepare
from data_pipeline.datasets.ytvis import YouTubeVis
from tests.data_pipeline.convert.test_prepare import tracks_of

HEIGHT, WIDTH = 48, 64
YAML = "path: /home/someone/mine\ntrain: images/train\nnames:\n  0: cat\n  1: dog\n"


def write_image(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(file)


def line(category, x, y=8, *, end=""):
    """A square of 16 pixels, in shares."""
    corners = [(x, y), (x + 16, y), (x + 16, y + 16), (x, y + 16)]
    shares = [f"{a / WIDTH} {b / HEIGHT}" for a, b in corners]
    return f"{category} {' '.join(shares)}{end}\n"


def write(root, labels, *, yaml=YAML, images="images/train", texts="labels/train"):
    """Images in `root/images`, labels in `root/texts`; labels by name, None is none."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(yaml)
    for name, text in labels.items():
        write_image(root / images / f"{name}.jpg")
        if text is not None:
            file = root / texts / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


def in_turn(labels):
    """Labels in turn are objects 0, 1, 0, 1, .. of the video."""
    return [k % 2 for k in range(len(labels))]


def squares(dataset, index):
    """Category and left edge of each track in each frame, None where it is absent."""
    found = []
    for name, masks in tracks_of(dataset, index):
        assert all(mask.sum() in (0, 256) for mask in masks)
        edges = [int(np.flatnonzero(m.any(0))[0]) if m.any() else None for m in masks]
        found.append((name, edges))
    return found


def test_identities_of_a_tracker_and_frames_without_objects(tmp_path):
    # Frames 2 and 10 of one video, whose name stands before the number; one of another.
    labels = {
        "a_10": line(0, 8, end=" 7") + line(1, 40, end=" 3"),
        "a_2": line(1, 32, end=" 3"),
        "a_11": None,
        "b_0": line(0, 0, end=" 1") * 2,  # a line that is there twice counts once
    }
    write(tmp_path / "in", labels)
    outcome = prepare(tmp_path / "in", tmp_path / "out", "train")
    assert outcome.found.layout == "yolo"
    assert "data.yaml has names, images/train/ has 4 images" in outcome.found.why
    dataset = YouTubeVis(tmp_path / "out", "train")
    assert [c.name for c in dataset.categories] == ["cat", "dog"]
    assert [video.name for video in dataset.videos] == ["a", "b"]
    assert dataset.videos[0].file_names == ("a/a_2.jpg", "a/a_10.jpg", "a/a_11.jpg")
    expected = [("dog", [32, 40, None]), ("cat", [None, 8, None])]
    assert squares(dataset, 0) == expected
    assert squares(dataset, 1) == [("cat", [0])]


def test_layouts_of_roboflow_and_cvat(tmp_path):
    labels = {
        f"clip_mp4-{t}_jpg.rf.{t}f": line(0, t) + line(0, 40 - t) for t in range(2)
    }
    roboflow = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]"
    folders = dict(images="train/images", texts="train/labels")
    write(tmp_path / "in", labels, yaml=roboflow, **folders)
    prepare(tmp_path / "in", tmp_path / "out", "train", link=in_turn)
    dataset = YouTubeVis(tmp_path / "out", "train")
    assert squares(dataset, 0) == [("cat", [0, 1]), ("cat", [40, 39])]
    assert dataset.videos[0].name == "clip_mp4"
    # CVAT: a list of images, in folders that are videos.
    labels = {f"one/{t}": line(1, t, end=" 1") for t in range(2)}
    labels |= {f"two/{t}": line(0, t, end=" 1") for t in range(2)}
    place = tmp_path / "images/cvat"  # says nothing of where its labels are
    write(place, labels, yaml=YAML.replace("images/train", "train.txt"))
    there = "images/train"
    starts = (there, place / there, f"./images/../{there}", there)
    names = "".join(f"{s}/{n}.jpg\n" for s, n in zip(starts, labels, strict=True))
    (place / "train.txt").write_text(names)
    prepare(place, tmp_path / "cvat_out", "train")
    dataset = YouTubeVis(tmp_path / "cvat_out", "train")
    assert [video.name for video in dataset.videos] == ["one", "two"]
    assert squares(dataset, 0) == [("dog", [0, 1])]


GOOD = {"a_0": line(0, 8, end=" 1"), "a_1": line(0, 9, end=" 1")}
DEFECTS = {
    "box": (
        "0 0.5 0.5 0.1 0.1",
        r"a_1.txt, video a, line 1: expected a polygon, got a",
    ),
    "class": (line(2, 8), "line 1: expected the number of a class, 0 to 1, got 2"),
    "zeros": ("0" * 9 + line(5, 8), "the number of a class, 0 to 1, got 0000000005"),
    "pixels": ("0 1 1 9 1 9 9", "line 1: expected x and y as fractions"),
    "not finite": (
        "0 0.1 0.1 nan 0.1 0.5 0.5",
        "line 1: expected x and y as fractions",
    ),
    "words": ("0 0.1 0.1 x 0.1 0.5 0.5", "line 1: expected numbers"),
    "confidence": (line(0, 8, end=" 0.9"), "no more than an identity, got 0.9"),
    "two points": ("0 0.1 0.1 0.5 0.5 1", "three points or more, got 4 numbers"),
    "some identities": (line(0, 8), "an identity in all lines of a video, or in none"),
    "two categories": (line(1, 8, end=" 1"), "identity 1: expected 'cat', as in an"),
    "twice": (line(0, 8, end=" 1") + line(0, 9, end=" 1"), "one label in a frame"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_of_a_label_is_named(name, tmp_path):
    text, message = DEFECTS[name]
    write(tmp_path / "in", GOOD | {"a_1": text})
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path / "in", tmp_path / "out", "train")
    assert not (tmp_path / "out").exists()


YAMLS = {
    "no such split": ("names: [cat]\nval: images/train", "split: expected one of val"),
    "elsewhere": ("names: [cat]\ntrain: /etc", "train: expected a folder or a list"),
    "key points": (YAML + "kpt_shape: [17, 3]\n", "kpt_shape: expected none"),
    "number": (YAML + "nc: 3\n", "nc: expected 2, as there are names, got 3"),
    "same name": ("names: [cat, cat]\ntrain: images", r"names\[1\]: expected a name"),
    "gaps": ("names: {0: cat, 2: dog}\ntrain: images", "names: expected a list"),
    "no YAML": ("names: [cat", "data.yaml: expected YAML, got"),
    "an object": ("!!python/object/apply:os.getcwd []", "expected YAML, got"),
}


@pytest.mark.parametrize("name", YAMLS)
def test_a_defect_of_data_yaml_is_named(name, tmp_path):
    text, message = YAMLS[name]
    write(tmp_path / "in", GOOD, yaml=text)
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path / "in", tmp_path / "out", "train")


def test_two_images_of_a_frame_and_links_out_are_refused(tmp_path):
    copies = {f"a_1_jpg.rf.{k}": line(0, 8) for k in range(2)}
    write(tmp_path / "in", copies)
    with pytest.raises(ValueError, match="expected one image of each frame"):
        prepare(tmp_path / "in", tmp_path / "out", "train", link=in_turn)
    write(tmp_path / "other", GOOD)
    secret = tmp_path / "secret.txt"
    secret.write_text(line(0, 8))
    file = tmp_path / "other/labels/train/a_1.txt"
    file.unlink()
    file.symlink_to(secret)
    with pytest.raises(ValueError, match="expected a path that stays inside"):
        prepare(tmp_path / "other", tmp_path / "out", "train")

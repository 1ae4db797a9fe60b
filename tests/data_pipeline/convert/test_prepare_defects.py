"""Defects of a folder in another layout are one line that names the place."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipeline.convert import LAYOUT_NAMES
from data_pipeline.convert.prepare import LAYOUTS, prepare
from tests.command_line import call, error_of
from tests.data_pipeline.convert import foreign_layouts as layouts
from tests.data_pipeline.convert.foreign_layouts import LENGTH, SHAPES

FIRST, SECOND = (video.name for video in SHAPES.videos)


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def coco_with(change):
    def write(root):
        layouts.as_coco(root)
        change_json(root / "annotations/train.json", change)

    return write


def labelme_with(change):
    def write(root):
        layouts.as_labelme(root)
        change_json(root / FIRST / "f2.json", change)

    return write


def cvat_with(old, new):
    def write(root):
        layouts.as_cvat(root)
        file = root / FIRST / "annotations.xml"
        file.write_text(file.read_text().replace(old, new, 1))

    return write


def davis_with(pixels):
    def write(root):
        layouts.as_davis(root)
        file = root / "Annotations/480p" / SECOND / "00001.png"
        Image.fromarray(pixels).save(file)

    return write


def mots_with(line):
    def write(root):
        layouts.as_mots_texts(root)
        with open(root / "train/MOTS20-01/gt/gt.txt", "a") as file:
            file.write("\n" + line)

    return write


def link_out(root):
    layouts.as_davis(root)
    (root.parent / "secret.jpg").write_bytes(b"")
    file = root / "JPEGImages/480p" / FIRST / "00002.jpg"
    file.unlink()
    os.symlink(root.parent / "secret.jpg", file)


def truncate(root):
    layouts.as_davis(root)
    file = root / "Annotations/480p" / FIRST / "00002.png"
    file.write_bytes(file.read_bytes()[:-40])


def missing_image(root):
    layouts.as_davis(root)
    (root / "JPEGImages/480p" / FIRST / "00002.jpg").unlink()


def unlisted(root):
    layouts.as_davis(root)
    (root / "ImageSets/2017/train.txt").write_text("bear\n")


def other_split(root):
    layouts.as_davis(root)
    (root / "ImageSets/2017/train.txt").rename(root / "ImageSets/2017/val.txt")


def huge(root):
    """A PNG of 20,000 x 3,000 pixels in a few bytes: nobody decodes it."""
    layouts.as_davis(root)
    folder = root / "JPEGImages/480p" / FIRST
    (folder / "00000.jpg").unlink()
    extents = struct.pack(">II5B", 20_000, 3_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", extents), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        crc = zlib.crc32(name + body)
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)
    (folder / "00000.png").write_bytes(data)


def ytvis_without_images(root):
    layouts.as_ytvis(root, "2021")
    (root / "train/JPEGImages").rename(root / "elsewhere")


def of_another_size(root):
    layouts.as_ytvis(root, "2021")
    Image.new("RGB", (64, 50)).save(root / f"train/JPEGImages/{SECOND}/00001.jpg")


def first_annotation(**values):
    return coco_with(lambda content: content["annotations"][0].update(values))


def first_image(**values):
    return coco_with(lambda content: content["images"][0].update(values))


def first_shape(**values):
    return labelme_with(lambda content: content["shapes"][0].update(values))


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><annotations>'
DEFECTS = {
    "link out of the folder": (link_out, "expected a path that stays inside"),
    "cut off PNG": (truncate, "00002.png: expected a whole image"),
    "image missing": (missing_image, "00002.png, video .*expected an image of this"),
    "unlisted video": (unlisted, "train.txt: expected the names of videos .*got bear"),
    "unlisted split": (other_split, "split: expected one of .*lists: val, got train"),
    "huge image": (huge, "expected at most 16384 pixels a side .*20000"),
    "colours, not ids": (
        davis_with(np.zeros((48, 64, 3), np.uint8)),
        "00001.png: expected a PNG with a palette .*got mode RGB",
    ),
    "PNG of another size": (
        davis_with(np.zeros((48, 60), np.uint8)),
        r"00001.png: expected \(height, width\) = \(48, 64\), .*got \(48, 60\)",
    ),
    "too few words": (mots_with("1 2001 2 48 64"), "gt.txt, line .*run lengths"),
    "unknown class": (mots_with("1 5001 5 48 64 PP3"), "gt.txt: .*class 1.*got 5001"),
    "no such frame": (
        mots_with("44 1001 1 48 64 PP3"),
        "line .*the number of an image, 0 to 3, got 44",
    ),
    "runs that do not fill": (mots_with("1 1900 1 48 64 11"), "line .*add up to"),
    "size of another frame": (mots_with("1 1900 1 40 64 PP3"), "size: expected the"),
    "no identity": (
        coco_with(lambda content: content["annotations"][0].pop("track_id")),
        "annotation 1, instance_id or track_id: expected the identity",
    ),
    "unknown image": (first_annotation(image_id=7777), "image_id: .*got 7777"),
    "unknown category": (first_annotation(category_id=99), "category_id: .*got 99"),
    "polygon of two points": (
        first_annotation(segmentation=[[1, 1, 5, 5]]),
        r"annotation 1, segmentation.\[0\]: expected a flat list",
    ),
    "path out of the folder": (
        first_image(file_name="../../etc/passwd"),
        r"images\[0\].file_name: expected a path inside",
    ),
    "absurd size": (first_image(width=10**9), r"images\[0\].width: expected 1 to"),
    "twice in a frame": (
        coco_with(lambda c: c["annotations"].append(c["annotations"][0])),
        "image_id: expected one annotation in a frame",
    ),
    "circle": (
        first_shape(shape_type="circle"),
        r"f2.json, .*shapes\[0\].shape_type: expected polygon",
    ),
    "image elsewhere": (
        labelme_with(lambda content: content.update(imagePath="/etc/hosts")),
        "etc/hosts: expected a path that stays inside",
    ),
    "two labels of a group": (first_shape(label="cow"), "label: expected one label"),
    "not finite": (
        first_shape(points=[[1, 1], [2, float("nan")], [3, 3]]),
        r"shapes\[0\].points: expected a list of \[x, y\]",
    ),
    "entities": (cvat_with("<annotations>", BOMB), "expected XML without a DTD"),
    "XML cut off": (cvat_with("</annotations>", ""), "XML .*no element found"),
    "other XML": (cvat_with("<annotations>", "<html>"), "root: .*got html"),
    "no such number": (cvat_with('frame="1"', 'frame="x"'), "frame: .*whole number"),
    "beyond the frame": (cvat_with('left="', 'left="9'), "expected a box in the frame"),
    "images nowhere": (ytvis_without_images, "instances.json: expected its first im"),
    "image of another size": (
        of_another_size,
        r"00001.jpg: expected \(height, width\) = \(48, 64\), .*got \(50, 64\)",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_one_line_that_names_it(name, tmp_path):
    write, message = DEFECTS[name]
    write(tmp_path / "in")
    with pytest.raises(ValueError, match=message) as caught:
        prepare(tmp_path / "in", tmp_path / "out", "train")
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert not left


def test_what_is_not_used_of_coco_may_be_anything(tmp_path):
    def change(content):
        content["videos"] = [{"id": [1], "name": "one"}]
        content["categories"][0]["supercategory"] = ["none"]

    coco_with(change)(tmp_path / "in")
    assert prepare(tmp_path / "in", tmp_path / "out", "train").written


def test_an_unknown_folder_is_told_what_was_looked_for(tmp_path):
    (tmp_path / "in").mkdir()
    words = ("data", "prepare", "--output", tmp_path / "out", "--source")
    message = error_of(*words, tmp_path / "in")
    assert tuple(LAYOUTS) == LAYOUT_NAMES
    for layout in LAYOUTS:
        assert f"{layout}: " in message
    assert "train.json" in message and "{split}" not in message
    message = error_of(*words, tmp_path / "in", "--layout=davis")
    assert "Annotations/" in message and "mots" not in message
    (tmp_path / "set.zip").write_bytes(b"PK")
    assert "has to be unpacked" in error_of(*words, tmp_path / "set.zip")
    assert "expected a folder, got none" in error_of(*words, tmp_path / "absent")
    assert "split: expected" in error_of(*words, tmp_path / "in", "--split=..")
    assert "--source: expected" in error_of("data", "prepare", "--output=x")
    assert "layout" in error_of(*words, tmp_path / "in", "--layout=voc")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_did(tmp_path):
    layouts.as_davis(tmp_path / "in")
    words = ("--source", tmp_path / "in", "--output", tmp_path / "out")
    outcome = call("data", "prepare", *words, "--category=thing")
    assert outcome.code == 0, outcome
    lines = outcome.out.splitlines()
    assert lines[0].startswith("layout        davis: Annotations/480p/ has folders")
    assert lines[1] == f"videos        2, {2 * LENGTH} frames"
    assert "categories    thing" in lines
    assert f"data          {tmp_path / 'out'}/train" in lines
    # Both videos have the one category: one of them is held out.
    assert lines[-2:] == [
        "train         python -m vis_jax.main"
        " --config configs/mask_track_rcnn_folder.py \\",
        f"                  --workdir runs/out --config.data.root={tmp_path / 'out'}",
    ]
    again = call("data", "prepare", *words, "--category=thing")
    assert "(was there already, nothing to do)" in again.out
    checked = call("data", "check", "--root", tmp_path / "out", "--split=train")
    assert checked.code == 0, checked
    assert "warnings      0" in checked.out

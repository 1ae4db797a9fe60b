"""Data files that are odd, or made to do harm, end in one line."""

import base64
import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipeline.convert.prepare import prepare
from data_pipeline.datasets import ytvis_masks
from data_pipeline.datasets.coco_json import read_categories
from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.datasets.ytvis_json import parse_annotations
from data_pipeline.datasets.ytvis_masks import MAX_COUNTS, read_mask
from data_pipeline.datasets.ytvis_tfds import TfdsVideos
from data_pipeline.errors import DataError, stop
from data_pipeline.write.tfds_builder import build
from tests.command_line import call, error_of
from tests.hostile.test_frames import READ, write_folder
from tests.hostile.test_labels import HEIGHT, WIDTH, block, picture, write_labelme
from tests.recipes import data_settings

NAMES = ["a\nb", "a\x1b[2Jb", "a\rb", "a\u2028b", "\x00", "a\ud800"]


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "in", READ["png"])


def edit(folder, change):
    file = folder / "instances.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return content


@pytest.mark.parametrize("name", NAMES)
def test_names_of_categories_are_one_line(folder, tmp_path, name):
    content = edit(folder, lambda content: content["categories"][0].update(name=name))
    with pytest.raises(DataError, match=r"categories\[0\].name: expected a name on"):
        parse_annotations(content, "file.json")
    with pytest.raises(DataError, match="a name on one line"):
        read_categories(folder, content)
    sheet = ("--contact_sheet", tmp_path / "sheet.png")
    outcome = call("data", "check", "--root", folder, *sheet)
    assert outcome.code == 2
    assert (tmp_path / "sheet.png").is_file()
    text = outcome.out + outcome.err
    assert all(sign.isprintable() or sign == "\n" for sign in text)


def test_a_label_of_a_tool_is_one_line(tmp_path):
    write_labelme(tmp_path / "in/clip", lambda t: [[1, 1], [9, 9]])
    file = tmp_path / "in/clip/1.json"
    file.write_text(file.read_text().replace("block", "a\\nb"))
    with pytest.raises(DataError, match=r"shapes\[0\].label: expected a name on one"):
        prepare(tmp_path / "in", tmp_path / "out", "train")


def test_the_names_of_a_run_are_one_line(tmp_path):
    from vis_jax.commands.parts import read_categories as read_names

    rows = [{"id": 1, "name": "a\nb"}]
    (tmp_path / "categories.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="categories.json: expected a list of id"):
        read_names(tmp_path)


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_a_packed_set_imports_nothing_of_its_own(folder, tmp_path, monkeypatch, key):
    """tensorflow-datasets imports the module of any class that the file names."""
    build(folder, "train", tmp_path / "packed")
    touched = tmp_path / "touched"
    (tmp_path / "evil.py").write_text(f"open({str(touched)!r}, 'w')\nraise OSError")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("vis_frames", "vis_videos"):
        file = tmp_path / f"packed/train/{name}/1.0.0/features.json"
        sound = file.read_text()
        content = json.loads(sound)
        features = content["featuresDict"]["features"]
        features["video_id"] = {key: "evil.Feature", "content": {}}
        file.write_text(json.dumps(content))
        with pytest.raises(DataError, match="features.json: expected one of the class"):
            TfdsVideos(tmp_path / "packed", "train")
        file.write_text(sound)
    assert not touched.exists()
    assert len(TfdsVideos(tmp_path / "packed", "train").videos) == 1


def mask_error(entry, height=HEIGHT, width=WIDTH) -> str:
    def here(field, expected, got):
        return DataError("file.json", field=field, expected=expected, got=got)

    with pytest.raises(DataError) as caught:
        read_mask(entry, height=height, width=width, here=here)
    return str(caught.value)


def test_masks_are_bounded():
    small = dict(size=[HEIGHT, WIDTH])
    text = mask_error(small | dict(counts="1" * 30_000_000))
    assert "expected at most 3470 characters, got 30000000" in text
    assert "3470 run lengths" in mask_error(small | dict(counts=[0] * 3471))
    large = dict(size=[4320, 8192], counts="1" * 30_000_000)
    assert "at most 4194304 characters" in mask_error(large, 4320, 8192)
    assert "262144 numbers" in mask_error([[1, 1, 9, 9, 1, 9] * 50_000])
    far = [[0, 0, 8192, 4320, 0, 4320] * 400]
    assert "outline of at most 4194304" in mask_error(far, 4320, 8192)


def test_the_largest_masks_that_fit_are_read():
    """Every second pixel of a small frame: as many runs as there can be."""
    flat = range(HEIGHT * WIDTH)
    entry = dict(size=[HEIGHT, WIDTH], counts=[1] * len(flat))
    runs = read_mask(entry, height=HEIGHT, width=WIDTH, here=DataError)
    np.testing.assert_array_equal(runs.ends, np.arange(1, len(flat) + 1))


def huge_png(height, width) -> bytes:
    """A PNG of few bytes that says it has many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    chunks = b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
        for k, d in parts
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("side", [100, 9_600, 12_000, 50_000])
def test_a_mask_of_labelme_that_is_huge_is_one_line(tmp_path, side):
    write_labelme(tmp_path / "in/clip", lambda t: [[1, 1], [9, 9]], "mask")
    for file in (tmp_path / "in/clip").glob("*.json"):
        content = json.loads(file.read_text())
        data = base64.b64encode(huge_png(side, side)).decode()
        content["shapes"][0]["mask"] = data
        file.write_text(json.dumps(content))
    words = ("--source", tmp_path / "in", "--output", tmp_path / "out")
    message = error_of("data", "prepare", *words)
    assert "0.json" in message and "shapes[0].mask: expected" in message


@pytest.mark.parametrize(
    "content", ["", "no base64", base64.b64encode(b"%!PS").decode()]
)
def test_a_mask_of_labelme_that_is_no_png_is_one_line(tmp_path, content):
    write_labelme(tmp_path / "in/clip", lambda t: [[1, 1], [9, 9]], "mask")
    for file in (tmp_path / "in/clip").glob("*.json"):
        whole = json.loads(file.read_text())
        whole["shapes"][0]["mask"] = content
        file.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"shapes\[0\].mask: expected a"):
        prepare(tmp_path / "in", tmp_path / "out", "train")


# Later steps accept whatever `data check` accepts.


@pytest.mark.parametrize("key", ["areas", "iscrowd"])
def test_a_missing_field_is_a_warning_and_can_be_split(folder, tmp_path, key):
    def change(content):
        del content["annotations"][0][key]
        videos, tracks = content["videos"], content["annotations"]
        videos.append(
            videos[0] | dict(id=2, name="w", file_names=["w/0.png", "w/1.png"])
        )
        tracks.append(tracks[0] | dict(id=2, video_id=2))

    edit(folder, change)
    (folder / "JPEGImages/w").mkdir()
    for t in range(2):
        picture(block(t)).save(folder / f"JPEGImages/w/{t}.png")
    outcome = call("data", "check", "--root", folder)
    assert outcome.code == 0
    assert (
        f"annotation 1, {key}: expected a value, which scoring requires" in outcome.out
    )
    assert "got nothing in 2 annotations" in outcome.out
    assert "warnings      1" in outcome.out
    words = ("--truth", folder / "instances.json", "--output", tmp_path / "split.json")
    split = call("data", "split", *words, "--num_held_out=1")
    assert (split.code, split.err) == (0, "")
    ids = json.loads((tmp_path / "split.json").read_text())
    assert sorted(ids["train"] + ids["held_out"]) == [1, 2]


def test_without_objects_check_warns_and_training_does_not_start(folder, tmp_path):
    edit(folder, lambda content: content.update(annotations=[]))
    outcome = call("data", "check", "--root", folder)
    assert outcome.code == 0
    assert "annotations: expected objects, as training and scoring need" in outcome.out
    words = (f"--config.data.root={folder}", "--config.data.name=folder")
    message = error_of(
        "train", "--config=configs/ifr_shapes.py:debug", *words,
        "--config.test.split=train", "--workdir", tmp_path / "run",
    )  # fmt: skip
    place = f"{folder / 'instances.json'}, annotations: expected annotated objects"
    assert message.startswith(place)
    assert YouTubeVis(folder, "train").tracks == ((),)  # can still be read


def test_crowds_alone_are_nothing_to_train_on(folder):
    from data_pipeline.datasets.by_name import make_training_set

    edit(folder, lambda content: content["annotations"][0].update(iscrowd=1))
    with pytest.raises(DataError, match="expected annotated objects in the videos"):
        make_training_set(data_settings(name="folder", root=str(folder)))


@pytest.mark.parametrize(
    "name", ["ifr_folder", "mask_track_rcnn_folder", "osmn_folder", "rgnn_vis_folder"]
)
def test_the_debug_recipe_of_a_folder_reads_it(folder, tmp_path, name):
    words = (f"--config=configs/{name}.py:debug", f"--config.data.root={folder}")
    message = error_of("train", *words, "--workdir", tmp_path / "run")
    assert f"{folder / 'instances.json'}: expected videos in part 'held_out'" in message
    assert "test.split=train evaluates on those that are trained on" in message


def test_pngs_in_memory_are_bounded_as_files():
    from data_pipeline.images import open_image

    def fail(**place):
        return DataError("file", **place)

    with pytest.raises(DataError, match="at most 16384 pixels a side"):
        open_image(io.BytesIO(huge_png(1, 20_000)), fail)
    with open_image(io.BytesIO(huge_png(4, 5)), fail) as image:
        assert isinstance(image, Image.Image)


def test_the_masks_of_a_track_are_read_in_portions(monkeypatch):
    """Memory is taken for some frames at a time; the numbers are the same."""
    entry = dict(size=[HEIGHT, WIDTH], counts=[10, 5, HEIGHT * WIDTH - 15])
    other = dict(size=[HEIGHT, WIDTH], counts=[7, HEIGHT * WIDTH - 7])
    entries = [entry, None, other, other, entry]
    tables = []
    for most in (MAX_COUNTS, 4):
        monkeypatch.setattr(ytvis_masks, "MAX_COUNTS", most)
        table = ytvis_masks.MaskTable()
        size = dict(height=HEIGHT, width=WIDTH)
        index = table.add(entries, **size, fail=DataError, report=stop)
        tables.append((index.tolist(), table.runs()))
    (index, runs), (same_index, same_runs) = tables
    assert index == same_index == [0, -1, 1, 2, 3]
    np.testing.assert_array_equal(runs.ends, same_runs.ends)
    np.testing.assert_array_equal(runs.splits, same_runs.splits)


def test_a_pipe_in_place_of_a_json_file_is_refused(folder, tmp_path):
    build(folder, "train", tmp_path / "packed")
    file = tmp_path / "packed/train/vis_frames/1.0.0/features.json"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="features.json: expected a regular file"):
        TfdsVideos(tmp_path / "packed", "train")

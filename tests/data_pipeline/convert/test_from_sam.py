"""Masklets of SA-V, and what SAM 3 finds, written as their users have them."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from data_pipeline.convert.prepare import prepare
from data_pipeline.datasets.ytvis import YouTubeVis
from tests.data_pipeline.convert.foreign_layouts import run_lengths
from tests.data_pipeline.convert.test_prepare import tracks_of

HEIGHT, WIDTH, LENGTH = 48, 64, 3
# Two objects of three annotated frames; the second is absent in the second.
TUBES = np.zeros((2, LENGTH, HEIGHT, WIDTH), bool)
for t in range(LENGTH):
    TUBES[0, t, 4:12, 5 + t : 15 + t] = True
    TUBES[1, t, 20:40, 30:50] = t != 1


def write_images(folder, numbers):
    folder.mkdir(parents=True)
    for number in numbers:
        file = folder / f"{number:05d}.jpg"
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(file)


def as_sav(root, name="sav_000001", kind="manual", **changes):
    """Every fourth of 11 frames is annotated; all are there as images."""
    if not (root / "JPEGImages_24fps" / name).exists():
        write_images(root / "JPEGImages_24fps" / name, range(11))
    content = {
        "video_id": name,
        "video_frame_count": 11.0,
        "video_height": float(HEIGHT),
        "video_width": float(WIDTH),
        "masklet": [[run_lengths(tube[t]) for tube in TUBES] for t in range(LENGTH)],
        "masklet_id": [0, 3],
        "masklet_type": [kind, kind],
        "masklet_num": 2,
    }
    (root / f"{name}_{kind}.json").write_text(json.dumps(content | changes))


def as_sam3(root, **changes):
    write_images(root / "clip", range(LENGTH + 1))  # the last one has no result
    for t in range(LENGTH):
        seen = TUBES[:, t].any((1, 2))
        outputs = {
            "out_obj_ids": np.array([2, 5])[seen],
            "out_probs": np.array([0.9, 0.6], np.float32)[seen],
            "out_boxes_xywh": np.zeros((2, 4), np.float32)[seen],
            "out_binary_masks": TUBES[:, t][seen],
        }
        file = root / f"clip/{t:05d}.npz"
        np.savez_compressed(file, **(outputs | (changes if t == 2 else {})))


@pytest.mark.parametrize("write", [as_sav, as_sam3])
def test_round_trip(write, tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    outcome = prepare(tmp_path / "in", tmp_path / "out", "train", category="toy")
    layout = "sav" if write is as_sav else "sam3"
    assert outcome.found.layout == layout
    dataset = YouTubeVis(tmp_path / "out", "train")
    (video,) = dataset.videos
    numbers = (0, 4, 8) if layout == "sav" else (0, 1, 2)
    assert video.file_names == tuple(f"{video.name}/{k:05d}.jpg" for k in numbers)
    found = tracks_of(dataset, 0)
    assert [name for name, _ in found] == ["toy", "toy"]
    np.testing.assert_array_equal([masks for _, masks in found], TUBES)


def test_manual_masklets_go_before_automatic_ones(tmp_path):
    (tmp_path / "in").mkdir()
    as_sav(tmp_path / "in")
    as_sav(tmp_path / "in", kind="auto", masklet=[[run_lengths(TUBES[0, 0])]] * LENGTH)
    as_sav(tmp_path / "in", name="sav_000002", kind="auto")
    outcome = prepare(tmp_path / "in", tmp_path / "out", "train")
    notes = "the automatic masklets of 1 videos that have manual ones"
    assert outcome.prepared.left_out == (notes,)
    assert len(outcome.prepared.content["annotations"]) == 4


RUN = run_lengths(TUBES[0, 0])
SAV = {
    "frames": (dict(video_frame_count=2), "video_frame_count: expected the frames of"),
    "no frames": (dict(video_frame_count=None), "video_frame_count: expected the fra"),
    "size": (dict(video_height=50.0), "video_height: expected 48, as the images"),
    "name": (dict(video_id="other"), "video_id: expected sav_000001, as the name"),
    "ids": (dict(masklet_id=[1, 1]), "masklet_id: expected an id of each object"),
    "number": (dict(masklet_id=[1]), r"masklet\[0\]: expected 1 masks, as masklet_id"),
    "run lengths": (
        dict(masklet=[[RUN, RUN | {"size": [1, 2]}]] * LENGTH),
        r"annotation 3, masklet\[0\]\[1\].size: expected",
    ),
    "images": (dict(video_frame_count=15), "numbered 0 to 10 in steps of 5|none of"),
    "more images": (
        dict(masklet=[[RUN, RUN]] * 4, video_frame_count=16),
        "numbered 12",
    ),
}


@pytest.mark.parametrize("name", SAV)
def test_a_defect_of_masklets_is_named(name, tmp_path):
    changes, message = SAV[name]
    (tmp_path / "in").mkdir()
    as_sav(tmp_path / "in", **changes)
    if name == "images":
        (tmp_path / "in/JPEGImages_24fps/sav_000001/00005.jpg").unlink()
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path / "in", tmp_path / "out", "train")


ids, masks = np.array([2, 5]), TUBES[:, 2]
SAM3 = {
    "twice": (dict(out_obj_ids=np.array([2, 2])), "identity 2: expected one label in"),
    "fractions": (dict(out_obj_ids=np.array([2.5, 5])), "out_obj_ids: expected whole"),
    "another size": (dict(out_binary_masks=masks[:, :9]), r"\[2, 48, 64\].*got bool"),
    "another number": (dict(out_obj_ids=ids[:1]), r"\[1, 48, 64\].*got bool \[2, 48"),
    "scores": (dict(out_binary_masks=masks * 0.5), "expected true or false, got float"),
    "objects": (dict(out_obj_ids=np.array([{}, 1], object)), "expected numbers"),
}


@pytest.mark.parametrize("name", SAM3)
def test_a_defect_of_an_npz_is_named(name, tmp_path):
    changes, message = SAM3[name]
    as_sam3(tmp_path / "in", **changes)
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path / "in", tmp_path / "out", "train")


def test_the_array_that_is_read_is_the_one_whose_header_was_checked(tmp_path):
    as_sam3(tmp_path / "in")
    prepare(tmp_path / "in", tmp_path / "out", "train")
    with zipfile.ZipFile(tmp_path / "in/clip/00001.npz", "a") as archive:
        archive.writestr("out_binary_masks", b"what NumPy would take first")
    prepare(tmp_path / "in", tmp_path / "same", "train")
    names = (tmp_path / one / "train/instances.json" for one in ("out", "same"))
    assert len({name.read_text() for name in names}) == 1


def test_a_damaged_npz_and_one_without_an_image(tmp_path):
    as_sam3(tmp_path / "in")
    file = tmp_path / "in/clip/00001.npz"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ValueError, match="00001.npz, video clip, out_obj_ids: expect"):
        prepare(tmp_path / "in", tmp_path / "out", "train")
    data = bytearray(file.read_bytes())
    data[70:90] = bytes(20)  # within the first array
    file.write_bytes(data)
    with pytest.raises(ValueError, match="00001.npz"):
        prepare(tmp_path / "in", tmp_path / "out", "train")
    (tmp_path / "in/clip/00001.jpg").unlink()
    with pytest.raises(ValueError, match="00001.npz: expected an image of the same"):
        prepare(tmp_path / "in", tmp_path / "out", "train")

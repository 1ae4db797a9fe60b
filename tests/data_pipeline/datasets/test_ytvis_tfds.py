"""Records against the folder that they were made from."""

import json
from itertools import islice

import numpy as np
import pytest

from data_pipeline.datasets.by_name import make_dataset
from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.datasets.ytvis_tfds import TfdsVideos
from data_pipeline.errors import DataError
from data_pipeline.pipeline import train_batches
from data_pipeline.settings import Settings
from data_pipeline.write.annotations import to_ytvis
from data_pipeline.write.tfds_builder import build
from tests.recipes import data_settings
from tests.small_disk import files_up_to

LENGTH = 6  # frames of the videos of the fixture


@pytest.fixture
def folder(write, annotations):
    """Two videos: every form of a mask, a crowd, levels of occlusion."""
    first, second, third = annotations["annotations"]
    first["segmentations"][1] = [[2, 2, 8, 2, 8, 8, 2, 8], [20, 2, 30, 2, 30, 8, 20, 8]]
    first["segmentations"][3] = {"size": [48, 64], "counts": [0, 5, 0, 3067]}
    first["segmentations"][4] = {"size": [48, 64], "counts": [48 * 64]}
    second["occlusion"] = ["no_occlusion", "severe_occlusion", None] * 2
    third["iscrowd"] = 1
    return write(annotations, images="JPEGImages")


@pytest.fixture
def packed(folder, tmp_path):
    """The folder as records, a file for each video."""
    built = build(folder, "train", tmp_path / "packed", shard_bytes=1)
    assert built[:3] == (2, 2 * LENGTH, 2)
    return tmp_path / "packed"


def same_truth(one, other):
    """Whether two data sets tell the same of every video."""
    assert one.categories == other.categories
    assert one.videos == other.videos
    for index in range(len(one.videos)):
        a, b = one.truth(index)._asdict(), other.truth(index)._asdict()
        np.testing.assert_equal(a, b)
        for key in ("labels", "track_ids", "crowd", "boxes", "present", "occlusion"):
            assert a[key].dtype == b[key].dtype


def settings(root, **changes) -> Settings:
    """Clips with every kind of change."""
    fields = dict(
        name="folder", root=str(root), frames=2, frame_range=3, short_side=(40, 70),
        canvas=(80, 96), instances=3, crop=(30, 60), colour=0.2, batch_size=4,
    )  # fmt: skip
    return data_settings(**fields | changes)


def test_whole_videos_and_truth_are_those_of_the_folder(folder, packed):
    one, other = YouTubeVis(folder, "train"), TfdsVideos(packed, "train")
    same_truth(one, other)
    for index in range(2):
        for frames in (range(LENGTH), [4, 1, 1]):
            a, b = (each.read_frames(index, np.array(frames)) for each in (one, other))
            np.testing.assert_array_equal(a, b)
            clips = [each.read_clip(index, np.array(frames)) for each in (one, other)]
            for a, b in zip(*clips, strict=True):
                np.testing.assert_array_equal(a, b)
    ids = np.array([3])
    files = [one.path(1, 3).read_bytes()]
    assert other.encoded(1, ids) == files
    assert json.dumps(to_ytvis(one)) == json.dumps(to_ytvis(other))


def test_batches_are_those_of_the_folder(folder, packed):
    batches = [
        train_batches(make_dataset(config), config, seed=2, start_step=1)
        for config in (settings(folder), settings(packed))
    ]
    for a, b in islice(zip(*batches, strict=False), 3):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_parts_divide_the_videos(folder, packed):
    assert isinstance(make_dataset(settings(packed)), TfdsVideos)
    for part in ("train", "held_out"):
        one, other = (
            make_dataset(settings(root, held_out=("first",)), part)
            for root in (folder, packed)
        )
        same_truth(one, other)
        a, b = (each.read_frames(0, np.array([5])) for each in (one, other))
        np.testing.assert_array_equal(a, b)
    with pytest.raises(DataError, match="held_out.*names or ids.*third"):
        make_dataset(settings(packed, held_out=("third",)))


def test_files_without_truth_have_videos(write, annotations, tmp_path):
    annotations["annotations"] = None
    folder = write(annotations, images="JPEGImages")
    build(folder, "valid", tmp_path / "packed")
    same_truth(YouTubeVis(folder, "valid"), TfdsVideos(tmp_path / "packed", "valid"))


@pytest.mark.parametrize("defect", ["missing", "cut off", "annotation"])
def test_a_defect_of_the_folder_leaves_nothing(write, annotations, tmp_path, defect):
    if defect == "annotation":
        annotations["annotations"][1]["segmentations"][0]["size"] = [64, 48]
        expected = r"annotation 2, segmentations\[0\]\.size"
    else:
        expected = r"second/00010\.jpg, video second: expected a"
    folder = write(annotations, images="JPEGImages")
    image = folder / "JPEGImages/second/00010.jpg"
    if defect == "missing":
        image.unlink()
    elif defect == "cut off":
        image.write_bytes(image.read_bytes()[:700])
    with pytest.raises(DataError, match=expected):
        build(folder, "train", tmp_path / "packed")
    assert not list((tmp_path / "packed").glob("*"))


def test_what_is_there_is_not_written_over(folder, packed):
    with pytest.raises(ValueError, match="output: expected no files in .*train"):
        build(folder, "train", packed)
    with pytest.raises(ValueError, match="split: expected a word .*'my set'"):
        build(folder, "my set", packed)
    assert [path.name for path in packed.iterdir()] == ["train"]


def test_a_full_disk_leaves_nothing(folder, tmp_path):
    with (
        files_up_to(10_000),
        pytest.raises(OSError, match="packed/train: .*File too large"),
    ):
        build(folder, "train", tmp_path / "packed")
    assert not list((tmp_path / "packed").iterdir())


def test_damaged_files_are_named(packed):
    (shard,) = packed.glob("train/vis_frames/1.0.0/*-00001-of-00002")
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    dataset = TfdsVideos(packed, "train")
    dataset.read_frames(0, np.array([0]))
    with pytest.raises(
        DataError, match="vis_frames/1.0.0, record 8: expected a whole record"
    ):
        dataset.read_frames(1, np.array([2]))
    config = settings(packed)
    with pytest.raises(DataError, match="vis_frames/1.0.0, record"):
        next(train_batches(dataset, config, seed=0, start_step=0))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("vis_videos/1.0.0/metadata.json", "metadata.json, categories: expected"),
        ("vis_videos/1.0.0/features.json", "vis_videos/1.0.0: expected split 'train'"),
        ("vis_frames/1.0.0", "vis_frames/1.0.0: expected a folder"),
    ],
)
def test_missing_files_are_named(packed, file, expected):
    path = packed / "train" / file
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(DataError, match=expected):
        TfdsVideos(packed, "train")


def test_frames_of_another_data_set_are_refused(packed):
    """Two halves of two data sets, as after copying by hand."""
    frames = packed / "train/vis_frames/1.0.0"
    one, other = (
        frames / f"vis_frames-train.array_record-0000{k}-of-00002" for k in "01"
    )
    other.write_bytes(one.read_bytes())
    dataset = TfdsVideos(packed, "train")
    with pytest.raises(
        DataError, match=r"record 9: expected video id .*\(2, 3\).*1, 3"
    ):
        dataset.read_frames(1, np.array([3]))
    info = frames / "dataset_info.json"
    info.write_text(info.read_text().replace('"6",', '"5",'))
    with pytest.raises(DataError, match="expected 12 frames, as in .*vis_videos.* 11"):
        TfdsVideos(packed, "train")

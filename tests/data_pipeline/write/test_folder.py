import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.moving_shapes.dataset import MovingShapes
from data_pipeline.write.annotations import to_ytvis
from data_pipeline.write.folder import write_dataset
from vis_jax.formats.occlusion import occlusion_word


@pytest.fixture(scope="module")
def shapes():
    return MovingShapes("val", num_videos=2, length=6, difficulty="hard")


@pytest.fixture(scope="module")
def folder(shapes, tmp_path_factory):
    output = tmp_path_factory.mktemp("sets") / "deep" / "shapes"
    write_dataset(output, shapes, progress=False)
    return output


def test_annotations_have_every_field_of_the_format(shapes, folder):
    content = json.loads((folder / "instances.json").read_text())
    assert content == to_ytvis(shapes)
    assert [v["id"] for v in content["videos"]] == [1, 2]
    tracks = content["annotations"]
    assert [track["id"] for track in tracks] == list(range(1, len(tracks) + 1))
    assert {c["id"] for c in content["categories"]} >= {
        t["category_id"] for t in tracks
    }
    for track in tracks:
        assert track["iscrowd"] == 0
        assert (track["height"], track["width"], track["length"]) == (96, 160, 6)
        per_frame = zip(
            track["segmentations"],
            track["bboxes"],
            track["areas"],
            track["occlusion"],
            strict=True,
        )
        for run, box, area, word in per_frame:
            assert (run is None) == (box is None) == (area is None) == (word is None)
            if run is not None:
                assert coco_mask.area(run) == area
                np.testing.assert_array_equal(coco_mask.toBbox(run), box)


def test_the_folder_reads_back_as_the_same_data_set(shapes, folder):
    read = YouTubeVis(folder, "val")
    assert read.categories == shapes.categories
    assert read.videos == shapes.videos
    for index in range(2):
        expected, truth = shapes.truth(index), read.truth(index)
        seen = expected.present
        for field in ("labels", "track_ids", "crowd", "boxes", "present"):
            np.testing.assert_array_equal(
                getattr(truth, field), getattr(expected, field)
            )
        assert truth.segmentations == expected.segmentations
        error = np.abs(truth.occlusion - expected.occlusion)[seen]
        assert error.max() <= 0.26  # three words for all shares
        frames = np.arange(6)
        images = shapes.read_frames(index, frames).astype(int)
        loss = np.abs(read.read_frames(index, frames) - images)
        assert loss.mean() < 4


def test_a_track_that_is_never_seen_is_left_out(shapes):
    class Hidden:
        categories, videos = shapes.categories, shapes.videos
        read_frames, read_clip = shapes.read_frames, shapes.read_clip

        def truth(self, index):
            truth = shapes.truth(index)
            present = truth.present.copy()
            present[0] = False
            runs = ((None,) * 6, *truth.segmentations[1:])
            return truth._replace(present=present, segmentations=runs)

    tracks = to_ytvis(Hidden())["annotations"]
    assert len(tracks) == len(to_ytvis(shapes)["annotations"]) - 2
    assert [track["id"] for track in tracks] == list(range(1, len(tracks) + 1))


def test_unknown_occlusion_is_not_made_up(shapes):
    class Unknown:
        categories, videos = shapes.categories, shapes.videos
        read_frames, read_clip = shapes.read_frames, shapes.read_clip

        def truth(self, index):
            truth = shapes.truth(index)
            return truth._replace(occlusion=np.full_like(truth.occlusion, np.nan))

    assert all("occlusion" not in t for t in to_ytvis(Unknown(), [0])["annotations"])


@pytest.mark.parametrize(
    ("share", "word"),
    [
        (0.0, "no_occlusion"),
        (0.049, "no_occlusion"),
        (0.05, "slight_occlusion"),
        (0.5, "severe_occlusion"),
        (1.0, "severe_occlusion"),
        (float("nan"), None),
    ],
)
def test_words_of_occlusion(share, word):
    assert occlusion_word(share) == word


def test_nothing_is_overwritten(shapes, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(
        ValueError, match="expected a new or empty folder, got one with"
    ):
        write_dataset(tmp_path, shapes, progress=False)
    with pytest.raises(ValueError, match="got a file"):
        write_dataset(tmp_path / "note.txt", shapes, progress=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["note.txt"]


def test_an_empty_folder_is_filled_and_a_failure_leaves_nothing(shapes, tmp_path):
    class Broken:
        categories, videos = shapes.categories, shapes.videos
        truth, read_clip = shapes.truth, shapes.read_clip

        def read_frames(self, index, frame_ids):
            if index == 1:
                raise OSError("disc is full")
            return shapes.read_frames(index, frame_ids)

    output = tmp_path / "set"
    output.mkdir()
    with pytest.raises(OSError, match="disc is full"):
        write_dataset(output, Broken(), progress=False)
    assert list(tmp_path.iterdir()) == [output] and not any(output.iterdir())
    write_dataset(output, shapes, progress=False)
    assert sorted(entry.name for entry in output.iterdir()) == [
        "JPEGImages",
        "instances.json",
    ]

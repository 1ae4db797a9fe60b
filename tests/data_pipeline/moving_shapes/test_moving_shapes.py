import pickle

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data_pipeline.moving_shapes.dataset import MovingShapes
from data_pipeline.moving_shapes.silhouettes import SILHOUETTES

LEVELS = ("easy", "medium", "hard", "crowd")


def make(**changes) -> MovingShapes:
    return MovingShapes(**{"num_videos": 3, "length": (5, 8), **changes})


def equal(a, b) -> bool:
    return all(
        np.array_equal(x, y, x.dtype.kind == "f") for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("difficulty", LEVELS)
def test_a_few_frames_equal_those_of_the_whole_video(difficulty):
    whole = make(difficulty=difficulty).render(1, np.arange(5))
    some = make(difficulty=difficulty).render(1, [4, 1])
    np.testing.assert_array_equal(some.images, whole.images[[4, 1]])
    np.testing.assert_array_equal(some.masks, whole.masks[:, [4, 1]])
    np.testing.assert_array_equal(some.boxes, whole.boxes[:, [4, 1]])
    np.testing.assert_array_equal(some.present, whole.present[:, [4, 1]])
    np.testing.assert_array_equal(some.occlusion, whole.occlusion[:, [4, 1]])
    np.testing.assert_array_equal(some.labels, whole.labels)
    np.testing.assert_array_equal(some.track_ids, whole.track_ids)


def test_a_video_follows_from_split_seed_and_index_alone():
    def pixels(index=0, **changes):
        return make(**changes).render(index, [0]).images

    np.testing.assert_array_equal(pixels(1), pixels(1, num_videos=7))
    others = [pixels(1), pixels(seed=1), pixels(split="val"), pixels(split="test")]
    assert all(not np.array_equal(pixels(), other) for other in others)


def test_reading_in_any_order_and_after_pickling_changes_nothing():
    dataset = make()
    first = dataset.render(0, [2])
    dataset.render(1, [0])
    assert equal(dataset.render(0, [2]), first)
    assert equal(pickle.loads(pickle.dumps(dataset)).render(0, [2]), first)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_shapes_dtypes_and_what_follows_from_the_masks(difficulty):
    dataset = make(difficulty=difficulty, height=64, width=96)
    T = dataset.videos[2].length
    video = dataset.render(2, range(T))
    M = len(video.labels)
    assert video.images.shape == (T, 64, 96, 3) and video.images.dtype == np.uint8
    assert video.masks.shape == (M, T, 64, 96) and video.masks.dtype == bool
    assert video.boxes.shape == (M, T, 4) and video.boxes.dtype == np.float32
    assert video.occlusion.dtype == np.float32
    assert video.labels.dtype == video.track_ids.dtype == np.int32
    assert video.track_ids.tolist() == list(range(1, M + 1))
    assert video.labels.min() >= 0 and video.labels.max() < len(dataset.categories)
    assert video.masks.sum(0).max() <= 1, "a pixel belongs to one instance"
    for m, t in np.ndindex(M, T):
        rows, columns = np.nonzero(video.masks[m, t])
        assert video.present[m, t] == (rows.size > 0)
        box = [0] * 4
        if rows.size:
            box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        np.testing.assert_array_equal(video.boxes[m, t], box)


@pytest.mark.parametrize(
    ("difficulty", "least", "most"),
    [("easy", 2, 4), ("medium", 3, 7), ("hard", 5, 10), ("crowd", 4, 7)],
)
def test_number_of_instances_each_seen_whole_once(difficulty, least, most):
    dataset = make(difficulty=difficulty, num_videos=10, length=12)
    for index in range(10):
        video = dataset.render(index, range(12))
        assert least <= len(video.labels) <= most
        assert (np.nanmin(video.occlusion, 1) == 0).all()


def test_occlusion_is_the_hidden_share_of_what_is_in_the_frame():
    dataset = make(difficulty="hard", num_videos=6, length=10)
    checked = 0
    for index in range(6):
        scene = dataset.scene(index)
        video = dataset.render(index, range(10))
        for i in scene.depth[-1:]:  # nothing hides the nearest
            assert np.nanmax(video.occlusion[i]) == 0
        for i in scene.depth[:-1]:
            alone = scene._replace(depth=np.array([i]))
            dataset._last = (dataset.videos[index].video_id, alone)
            silhouette = dataset.render(index, range(10)).masks[i].sum((1, 2))
            dataset._last = (dataset.videos[index].video_id, scene)
            visible = video.masks[i].sum((1, 2))
            here = silhouette > 0
            share = 1 - visible[here] / silhouette[here]
            np.testing.assert_allclose(video.occlusion[i][here], share, atol=1e-6)
            assert np.isnan(video.occlusion[i][~here]).all()
            checked += (visible < silhouette).sum()
    assert checked > 20


def test_truth_holds_the_same_tracks_as_render():
    dataset = make(difficulty="hard")
    T = dataset.videos[0].length
    truth, video = dataset.truth(0), dataset.render(0, range(T))
    for field in ("labels", "track_ids", "boxes", "present", "occlusion"):
        np.testing.assert_array_equal(getattr(truth, field), getattr(video, field))
    assert not truth.crowd.any()
    for m, t in np.ndindex(*truth.present.shape):
        run = truth.segmentations[m][t]
        assert (run is not None) == truth.present[m, t]
        if run is not None:
            np.testing.assert_array_equal(coco_mask.decode(run), video.masks[m, t])
    frames = dataset.read_frames(0, np.array([3, 0]))
    np.testing.assert_array_equal(frames, video.images[[3, 0]])


def test_masks_lie_on_the_drawn_shape():
    """Without motion and noise, colour edges are mask edges."""
    dataset = make(num_videos=8)
    for index in range(8):
        scene = dataset.scene(index)
        scene = scene._replace(
            background=np.zeros_like(scene.background),
            grain=np.zeros_like(scene.grain),
            styles=tuple(
                style._replace(surface=np.full_like(style.surface, 200.0))
                for style in scene.styles
            ),
        )
        dataset._last = (dataset.videos[index].video_id, scene)
        video = dataset.render(index, [0])
        bright = video.images[0, ..., 0] >= 100
        owned = video.masks[:, 0].any(0)
        # Where two outlines cross, coverage adds up.
        assert (bright != owned).mean() < 0.002


@pytest.mark.parametrize("name", SILHOUETTES)
@pytest.mark.parametrize("proportion", [0.0, 1.0])
def test_silhouettes_stay_in_the_unit_circle_with_unit_slope(name, proportion):
    axis = np.linspace(-1.3, 1.3, 400, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    distance = SILHOUETTES[name](u, v, proportion)
    assert distance.shape == u.shape
    inside = distance <= 0
    assert (np.hypot(u, v)[inside] <= 1.01).all()
    assert 0.12 < inside.mean() < 0.6
    slope = np.hypot(*np.gradient(distance, axis[1] - axis[0]))
    near = np.abs(distance) < 0.03
    assert 0.85 < np.median(slope[near]) < 1.2


@pytest.mark.parametrize("difficulty", ["hard", "crowd"])
def test_there_are_look_alikes_and_they_cross(difficulty):
    dataset = make(difficulty=difficulty, num_videos=4, length=20)
    twins, hidden = 0, []
    for index in range(4):
        scene = dataset.scene(index)
        surfaces = {id(style.surface) for style in scene.styles}
        twins += len(scene.styles) - len(surfaces)
        occlusion = dataset.render(index, range(20)).occlusion
        hidden.append(np.nanmax(occlusion))
    assert twins >= 4
    assert max(hidden) > 0.5


def test_large_frames():
    video = make(num_videos=1, height=360, width=640).render(0, [0])
    assert video.images.shape == (1, 360, 640, 3)
    heights = video.boxes[:, 0, 3] - video.boxes[:, 0, 1]
    assert heights.max() > 60


def test_a_single_frame_is_a_video():
    video = make(length=1, difficulty="hard").render(0, [0])
    assert video.present.all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "dev"}, "split: expected one of .*got 'dev'"),
        (
            {"difficulty": "extreme"},
            "difficulty: expected 'easy' or 'medium' or 'hard' or 'crowd'",
        ),
        ({"height": 8}, "data.shapes.height: expected int, at least 32, got 8"),
        ({"length": (5, 3)}, r"length: expected \(least, most\), got \(5, 3\)"),
        ({"length": 0}, r"length: expected int or \(int, int\), at least 1, got 0"),
        ({"length": (5, 6, 7)}, "length: expected"),
        ({"num_videos": 0}, "num_videos"),
        ({"seed": -1}, "seed"),
        ({"width": 99.5}, "width"),
    ],
)
@pytest.mark.usefixtures("types_unchecked")
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_wrong_frames_are_named():
    with pytest.raises(ValueError, match=r"frame_ids of easy_train_0_00000.*\[0, 9\]"):
        make(length=5).render(0, [0, 9])


@pytest.mark.parametrize(
    ("difficulty", "labels", "boxes", "colour"),
    [
        ("easy", [1, 0], [[17, 37, 48, 67], [46, 6, 75, 38]], [135.1, 95.3, 127.2]),
        (
            "hard",
            [1, 0, 1, 0, 0, 0],
            [[95, 24, 119, 38], [53, 39, 65, 55], [44, 15, 64, 32]],
            [133.8, 80.8, 132.3],
        ),
        (
            "crowd",
            [0, 0, 0, 0, 1, 1],
            [[32, 1, 56, 26], [0, 0, 0, 0], [39, 44, 62, 70]],
            [120.5, 73.8, 108.0],
        ),
    ],
)
def test_videos_are_those_of_the_published_numbers(difficulty, labels, boxes, colour):
    """Changed on purpose? Then measure the tables of docs/data.md anew."""
    video = MovingShapes("val", num_videos=1, length=8, difficulty=difficulty).render(
        0, [7]
    )
    assert video.labels.tolist() == labels
    # Rounding may differ between machines by a pixel, not more.
    np.testing.assert_allclose(video.boxes[: len(boxes), 0], boxes, atol=1)
    np.testing.assert_allclose(video.images.mean((0, 1, 2)), colour, atol=0.5)

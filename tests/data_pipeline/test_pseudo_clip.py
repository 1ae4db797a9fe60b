"""Images set in motion: pixels, masks and boxes move as one, the same for every run."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_pipeline import numpy_pipeline
from data_pipeline.augment.pseudo_clip import (
    ViewLimits,
    draw_views,
    take_views,
    view_matrices,
)
from data_pipeline.datasets.by_name import make_dataset, make_training_set
from data_pipeline.datasets.clip_arrays import clip_of_truth
from data_pipeline.datasets.first_videos import FirstVideos
from data_pipeline.datasets.joint import place_of
from data_pipeline.errors import DataError
from data_pipeline.pipeline import train_batches
from data_pipeline.schema import check_batch
from tests.recipes import data_settings

HEIGHT, WIDTH = 60, 80
COLOURS = {"dog": 0, "motorcycle": 1, "mouse": 2}  # channel
BOXES = {  # of each image: name and x, y, width, height
    "one": [("dog", (6, 8, 30, 20)), ("mouse", (40, 30, 30, 24))],
    "two": [("motorcycle", (20, 10, 34, 40))],
    "three": [("mouse", (10, 10, 20, 20))],
}
NAMES = (("motorcycle", "motorbike"), ("mouse", ""), ("dog", "sedan"))


def write_coco(root, change=lambda content: None):
    """Three images; the colour of a pixel says what it is."""
    (root / "images/train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for number, (name, boxes) in enumerate(BOXES.items(), start=10):
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        file = f"{name}.png" if name == "two" else f"{name}.jpg"
        images.append({"id": number, "file_name": file, "height": 60, "width": 80})
        for category, (x, y, w, h) in boxes:
            pixels[y : y + h, x : x + w, COLOURS[category]] = 255
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 50 + COLOURS[category],
                    "iscrowd": 0,
                    "segmentation": [corners],
                }
            )
        image = Image.fromarray(pixels)
        options = {} if name == "two" else dict(quality=100, subsampling=0)
        image.save(root / "images/train2017" / file, **options)
    categories = [{"id": 50 + k, "name": name} for name, k in COLOURS.items()]
    content = dict(images=images, annotations=annotations, categories=categories)
    change(content)
    file = root / "annotations/instances_train2017.json"
    file.write_text(json.dumps(content))
    return root


@pytest.fixture
def config(tmp_path):
    """COCO alone: every clip is an image in motion."""
    return data_settings(
        name="coco", root=str(write_coco(tmp_path / "coco")), split="train2017",
        stills=dict(names=NAMES), frames=4, frame_range=4, short_side=(48, 64),
        canvas=(64, 96), instances=3, batch_size=4,
    )  # fmt: skip


def with_stills(config, **fields):
    return replace(config, stills=replace(config.stills, **fields))


@pytest.fixture
def joint(config, write, annotations):
    """Videos of cats and dogs with a share of images."""
    annotations["categories"] = [
        {"id": 7, "name": "motorbike"},
        {"id": 3, "name": "Dog"},
    ]
    root = str(write(annotations, images="JPEGImages"))
    config = with_stills(config, root=config.root, share=0.25)
    return replace(config, name="folder", root=root, split="train", short_side=(48,))


def test_clips_without_motion_are_those_of_the_truth(joint):
    dataset = make_training_set(joint)
    for part in (dataset, FirstVideos(dataset, 3)):
        for index, video in enumerate(part.videos):
            ids = np.array([0, video.length - 1])
            clip = part.read_clip(index, ids)
            expected = clip_of_truth(clip.images, part.truth(index), ids)
            for found, array in zip(clip, expected, strict=True):
                np.testing.assert_array_equal(found, array)
            frames = part.read_frames(index, ids)
            np.testing.assert_array_equal(clip.images, frames)


def view(x=0.0, y=0.0, angle=0.0, zoom=1.0):
    return np.array([[x, y, angle, zoom]])


def test_a_view_of_all_is_the_image():
    matrices = view_matrices(view(), (30, 40), (30, 40))
    np.testing.assert_allclose(matrices[0], [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    masks = image[None, ..., 0] > 99
    frames, moved = take_views(image, masks, matrices.astype(np.float32), (30, 40))
    np.testing.assert_array_equal(frames[0], image)
    np.testing.assert_array_equal(moved[:, 0], masks)


def test_half_the_window_at_the_left_bottom_is_that_quarter_enlarged():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    matrices = view_matrices(view(x=-1, y=1, zoom=0.5), (30, 40), (15, 20))
    frames, _ = take_views(
        image, np.zeros((0, 30, 40), bool), matrices.astype(np.float32), (15, 20)
    )
    np.testing.assert_array_equal(frames[0], image[15:, :20])


def test_views_never_leave_the_image():
    motion = ViewLimits((0.3, 1.0), 40.0)
    corners = np.array([[0, 0, 1], [90, 0, 1], [0, 50, 1], [90, 50, 1]]).T
    for seed in range(50):
        views = draw_views(np.random.default_rng(seed), 7, motion)
        points = view_matrices(views, (64, 100), (50, 90)) @ corners
        assert points.min() > -1e-9
        assert (points.max((0, 2)) < np.array([100, 64]) + 1e-9).all()


def test_paths_are_smooth():
    """A quadratic curve: all second differences are the same."""
    views = draw_views(np.random.default_rng(0), 9, ViewLimits((0.5, 1.0), 20.0))
    second = np.diff(views, 2, axis=0)
    np.testing.assert_allclose(second, np.broadcast_to(second[0], second.shape))
    assert np.abs(np.diff(views, axis=0)).min() > 0


def test_masks_move_as_the_pixels_do():
    """A warped mask is the mask of the warped picture of it, up to its outline."""
    y, x = np.mgrid[:90, :120]
    masks = np.stack([(x - 50) ** 2 + (y - 40) ** 2 < 900, x > y + 20])
    image = np.stack([*masks, masks[0]], -1).astype(np.uint8) * 255
    views = draw_views(np.random.default_rng(3), 5, ViewLimits((0.6, 0.9), 20.0))
    matrices = view_matrices(views, (90, 120), (60, 80)).astype(np.float32)
    frames, moved = take_views(image, masks, matrices, (60, 80))
    for k in range(2):
        drawn = frames.numpy()[..., k] > 127
        both = (drawn & moved[k].numpy()).sum((1, 2))
        either = (drawn | moved[k].numpy()).sum((1, 2))
        assert (both / either > 0.97).all()
    assert len({frame.tobytes() for frame in frames.numpy()}) == 5


def test_batches_of_images_keep_the_contract(config):
    dataset = make_training_set(config)
    assert [c.name for c in dataset.categories] == list(COLOURS)
    whole = list(islice(train_batches(dataset, config, seed=4, start_step=0), 3))
    moving = 0
    for batch in whole:
        check_batch(batch, B=4, T=4, M=3, H=64, W=96)
        for b, m in np.argwhere(batch["instance_valid"]):
            channel = int(batch["labels"][b, m])
            pixels = batch["images"][b, ..., channel] > 127
            masks = batch["masks"][b, m]
            for t in np.flatnonzero(batch["present"][b, m]):
                rows, columns = np.nonzero(masks[t])
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert batch["boxes"][b, m, t].tolist() == box
                # The outline: resized bilinear and nearest, then turned.
                outline = 2 * (box[2] - box[0] + box[3] - box[1])
                assert (pixels[t] ^ masks[t]).sum() <= outline + 4
            moving += len(np.unique(batch["boxes"][b, m], axis=0)) > 2
    assert moving > 10
    second = next(
        train_batches(dataset, config, seed=4, start_step=2, host_index=1, host_count=2)
    )
    for key, array in second.items():
        np.testing.assert_array_equal(array, whole[2][key][2:])


def test_videos_and_images_take_turns(joint):
    dataset = make_training_set(joint)
    assert dataset.stills.left_out == {"mouse": 2}
    assert dataset.stills.images_left_out == 1
    assert "2 images with 2 objects; left out: 1 images" in dataset.summary()
    assert len(dataset.videos) == 4
    np.testing.assert_array_equal(dataset.truth(2).boxes[0, 0], [6, 8, 36, 28])
    assert dataset.read_frames(3, np.zeros(2, int)).shape == (2, HEIGHT, WIDTH, 3)
    batches = list(islice(train_batches(dataset, joint, seed=0, start_step=0), 3))
    alone = train_batches(dataset.clips, joint, seed=0, start_step=0)
    videos = np.concatenate([batch["images"] for batch in islice(alone, 3)])
    for k, batch in enumerate(batches):
        check_batch(batch, B=4, T=4, M=3)
        # Every fourth clip is of an image; the others are what they are alone.
        np.testing.assert_array_equal(batch["images"][:3], videos[3 * k : 3 * k + 3])
        still = batch["images"][3]
        names = {0: "Dog", 1: "motorbike"}  # by category id
        found = {names[v] for v in batch["labels"][3, batch["instance_valid"][3]]}
        assert found <= ({"Dog"} if still[..., 1].max() < 127 else {"motorbike"})


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9, 1.0])
def test_the_share_is_spread_evenly(share):
    places = [place_of(position, share) for position in range(200)]
    for still in (True, False):
        numbers = [place.number for place in places if place.still == still]
        assert numbers == list(range(len(numbers)))
    counts = np.cumsum([place.still for place in places])
    assert np.abs(counts - share * np.arange(1, 201)).max() < 1 + 1e-9


def test_evaluation_sees_only_what_it_asks_for(joint):
    assert len(make_dataset(joint, "train").videos) == 2
    assert len(make_training_set(with_stills(joint, share=0.0)).videos) == 2


def test_settings_that_cannot_be(config, joint):
    for zoom in ((0.0, 1.0), (0.9, 0.5), 1, ("a", "b"), (0.5, 0.7, 0.9)):
        with pytest.raises(ValueError, match="stills.zoom: expected"):
            data_settings(name="coco", stills=dict(zoom=zoom))
    with pytest.raises(ValueError, match=r"stills.angle: expected float, 0 \.\. 45"):
        data_settings(name="coco", stills=dict(angle=90))
    with pytest.raises(ValueError, match="data.loader: expected 'tf'"):
        numpy_pipeline.train_batches(
            make_training_set(joint), joint, seed=0, start_step=0
        )
    with pytest.raises(ValueError, match=r"stills.share: expected float, 0 \.\. 1"):
        data_settings(name="coco", stills=dict(share=1.5))
    with pytest.raises(ValueError, match="stills.share: expected more than 0, below"):
        make_training_set(with_stills(joint, share=1.0))
    other = (("dog", ""), ("motorcycle", ""))
    with pytest.raises(DataError, match="expected a category among"):
        make_training_set(with_stills(joint, share=0.5, names=other))
    with pytest.raises(DataError, match="expected the file annotations/instances_tr"):
        make_training_set(with_stills(joint, share=0.5, names=other, root="absent"))


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        (
            "segmentation",
            [[1, 2]],
            r"annotation 1, segmentation.\[0\]: expected a flat",
        ),
        ("image_id", 99, "annotation 1, image_id: expected an id that is listed"),
        ("category_id", "x", "annotation 1, category_id: expected an id"),
    ],
)
def test_defects_of_annotations_name_the_place(tmp_path, config, key, value, match):
    root = write_coco(
        tmp_path / "bad", lambda content: content["annotations"][0].update({key: value})
    )
    with pytest.raises(DataError, match=match):
        make_training_set(replace(config, root=str(root)))


def test_a_bad_image_is_named(config, tmp_path):
    for file in (tmp_path / "coco/images/train2017").iterdir():
        file.write_bytes(file.read_bytes()[:300])
    batches = train_batches(make_training_set(config), config, seed=0, start_step=0)
    with pytest.raises(
        DataError, match=r"(one.jpg|two.png|three.jpg), video .* whole image"
    ):
        next(batches)


def test_the_warp_runs_in_a_graph_without_instances():
    matrices = view_matrices(view(zoom=0.5), (8, 8), (4, 4)).astype(np.float32)
    run = tf.function(take_views)
    frames, masks = run(
        tf.zeros([8, 8, 3], tf.uint8),
        tf.zeros([0, 8, 8], tf.bool),
        tf.constant(matrices),
        tf.constant([4, 4]),
    )
    assert frames.shape == (1, 4, 4, 3) and masks.shape == (0, 1, 4, 4)

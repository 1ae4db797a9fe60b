import json
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from data_pipeline.augment.colour import jitter
from data_pipeline.clip_sampling import plan_clip, video_extents
from data_pipeline.datasets.by_name import DATASETS, make_dataset
from data_pipeline.numpy_pipeline import train_batches
from data_pipeline.pad import pad_clip
from data_pipeline.schema import check_batch
from data_pipeline.settings import NAMES
from tests.recipes import data_settings
from vis_jax.settings import to_dict


@pytest.fixture
def config():
    return data_settings(
        name="moving_shapes", frames=2, frame_range=3, short_side=(48,),
        canvas=(64, 96), instances=3, colour=0.2, batch_size=4,
        shapes=dict(height=48, width=80, length=4, num_videos=5),
    )  # fmt: skip


def test_batches_keep_the_schema_and_can_be_taken_up(config):
    dataset = make_dataset(config)
    batches = list(islice(train_batches(dataset, config, seed=1, start_step=0), 3))
    for batch in batches:
        check_batch(batch, B=4, T=2, M=3, H=64, W=96)
    again = next(train_batches(dataset, config, seed=1, start_step=2))
    for key, array in again.items():
        np.testing.assert_array_equal(array, batches[2][key])


@pytest.mark.parametrize("kind", ["run", "steps"])
def test_a_video_that_ends_early_is_padded(config, kind):
    sampling = {"kind": kind}
    shapes = dict(height=48, width=80, length=(2, 6), num_videos=9)
    fields = dict(frames=4, batch_size=9, sampling=sampling, shapes=shapes, flip=0.0)
    config = data_settings(**{**to_dict(config), **fields})
    dataset = make_dataset(config)
    batches = list(islice(train_batches(dataset, config, seed=1, start_step=0), 3))
    for batch in batches:
        check_batch(batch, B=9, T=4, M=3)
        lengths = sorted(min(4, video.length) for video in dataset.videos)
        assert sorted(batch["frame_valid"].sum(1)) == lengths
        assert lengths[0] < 4
    again = next(train_batches(dataset, config, seed=1, start_step=2))
    for key, array in again.items():
        np.testing.assert_array_equal(array, batches[2][key])


def test_colour_is_changed_as_if_there_were_no_padding(config):
    shapes = dict(height=48, width=80, length=2, num_videos=3)
    fields = dict(
        sampling={"kind": "run"}, frames=5, shapes=shapes, colour=0.5, flip=0.0
    )
    config = data_settings(**{**to_dict(config), **fields})
    dataset = make_dataset(config)
    batch = next(train_batches(dataset, config, seed=1, start_step=0))
    for position, images in enumerate(batch["images"]):
        plan = plan_clip(1, position, video_extents(dataset), config)
        drawn = dataset.render(plan.video, [0, 1]).images
        expected = jitter(drawn, np.array(plan.colour, np.float32))
        np.testing.assert_array_equal(images[:2, :48, :80], expected)
        assert not images[2:].any()


@pytest.mark.parametrize("kind", ["near", "run"])
def test_frames_flipped_one_by_one_take_their_truth_along(config, kind):
    fields = dict(flip_per="frame", sampling={"kind": kind}, frames=4, colour=0.0)
    shapes = dict(height=48, width=80, length=3, num_videos=3)
    config = data_settings(**{**to_dict(config), **fields, "shapes": shapes})
    dataset = make_dataset(config)
    batch = next(train_batches(dataset, config, seed=2, start_step=0))
    check_batch(batch)
    mixed = 0
    for position in range(4):
        plan = plan_clip(2, position, video_extents(dataset), config)
        drawn = dataset.render(plan.video, plan.frame_ids)
        for t, flip in enumerate(plan.flip[: len(plan.frame_ids)]):
            step = -1 if flip else 1
            for m in np.flatnonzero(batch["instance_valid"][position]):
                mask = drawn.masks[batch["track_ids"][position, m] - 1, t, :, ::step]
                found = batch["masks"][position, m, t]
                np.testing.assert_array_equal(found[:48, :80], mask)
                x = np.flatnonzero(mask.any(0))
                if x.size:
                    box = batch["boxes"][position, m, t]
                    assert box[[0, 2]].tolist() == [x[0], x[-1] + 1]
            pixels = batch["images"][position, t, :48, :80]
            np.testing.assert_array_equal(pixels, drawn.images[t, :, ::step])
        mixed += len(set(plan.flip[: len(plan.frame_ids)].tolist())) > 1
    assert mixed


def test_neither_tensorflow_nor_jax_is_needed():
    code = (
        "import sys, data_pipeline.numpy_pipeline, data_pipeline.datasets.by_name;"
        "import data_pipeline.read_video;"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'jax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_program_may_end_between_two_batches(config):
    # A module that goes late keeps the generator until little else is left.
    code = (
        "import json, sys, threading;"
        "from data_pipeline.settings import Settings;"
        "from vis_jax.settings import read_settings;"
        "from data_pipeline.datasets.by_name import make_dataset;"
        "from data_pipeline.numpy_pipeline import train_batches;"
        "config = read_settings(Settings, json.loads(sys.argv[1]));"
        "dataset = make_dataset(config);"
        "threading.kept = train_batches(dataset, config, seed=1, start_step=0);"
        "next(threading.kept)"
    )
    command = [sys.executable, "-c", code, json.dumps(to_dict(config))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_thread_is_left_once_batches_are_closed(config):
    before = set(threading.enumerate())
    batches = train_batches(make_dataset(config), config, seed=1, start_step=0)
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    assert not set(threading.enumerate()) - before


def test_hosts_share_a_batch(config):
    dataset = make_dataset(config)
    whole = next(train_batches(dataset, config, seed=1, start_step=1))
    shares = [
        next(
            train_batches(
                dataset, config, seed=1, start_step=1, host_index=k, host_count=2
            )
        )
        for k in range(2)
    ]
    for key, array in whole.items():
        joined = np.concatenate([share[key] for share in shares])
        np.testing.assert_array_equal(joined, array)


def test_a_flip_mirrors_pixels_masks_and_boxes(config):
    dataset, batches, width = make_dataset(config), [], 80
    for flip in (0.0, 1.0):
        clips = replace(config, flip=flip, colour=0.0)
        batches.append(next(train_batches(dataset, clips, seed=1, start_step=0)))
    plain, mirrored = batches
    for name, pixels in (("images", "btyxc"), ("masks", "bmtyx")):
        x = pixels.index("x")
        before, after = (np.moveaxis(b[name], x, -1)[..., :width] for b in batches)
        np.testing.assert_array_equal(after, before[..., ::-1], err_msg=name)
    present = plain["present"]
    x1, y1, x2, y2 = np.moveaxis(plain["boxes"][present], -1, 0)
    expected = np.stack([width - x2, y1, width - x1, y2], -1)
    np.testing.assert_array_equal(mirrored["boxes"][present], expected)


def test_resizing_is_refused(config):
    dataset = make_dataset(config)
    for name, value in (
        ("short_side", (96,)),
        ("crop", (20, 30)),
        ("zoom", (0.5, 1.0)),
        ("long_side", 60),
        ("canvas", (48, 64)),
    ):
        bad = replace(config, **{name: value})
        with pytest.raises(ValueError, match=rf"data\.{name}: expected"):
            train_batches(dataset, bad, seed=0, start_step=0)


def test_bad_arguments_are_refused_at_once(config):
    dataset = make_dataset(config)
    with pytest.raises(ValueError, match="seed"):
        train_batches(dataset, config, seed=-1, start_step=0)
    with pytest.raises(ValueError, match="start_step"):
        train_batches(dataset, config, seed=0, start_step=-1)


def test_data_sets_by_name(config):
    assert len(make_dataset(config, "held_out").videos) == 5
    with pytest.raises(ValueError, match="data.split"):
        make_dataset(config, "valid")
    with pytest.raises(ValueError, match="data.name: expected one of .*'imagenet'"):
        data_settings(name="imagenet")
    assert set(DATASETS) == set(NAMES)


def test_padding_keeps_the_largest_in_order():
    masks = np.zeros((5, 2, 4, 6), bool)
    masks[0, 0, 0, :2] = True  # 2 pixels
    masks[2, :, 1, 1:5] = True  # 8
    masks[3, 1, 3, 5] = True  # 1
    masks[4, 0, 2, :2] = True  # 2, as the first
    clip = pad_clip(
        np.ones((2, 4, 6, 3), np.uint8),
        masks,
        labels=np.arange(5),
        track_ids=np.arange(1, 6),
        frames=2,
        canvas=(8, 8),
        instances=2,
    )
    assert clip["track_ids"].tolist() == [1, 3]
    assert clip["boxes"][1].tolist() == [[1, 1, 5, 2]] * 2
    assert clip["present"].tolist() == [[True, False], [True, True]]
    assert clip["images"].sum() == 2 * 4 * 6 * 3


def test_colour_factors_in_closed_form():
    images = np.full((1, 2, 2, 3), 100, np.uint8)
    images[0, 0, 0] = (200, 100, 40)
    np.testing.assert_array_equal(jitter(images, np.ones(3)), images)
    brighter = jitter(images, np.array([1.5, 1.0, 1.0]))
    assert brighter[0, 0, 0].tolist() == [255, 150, 60]
    grey = jitter(images, np.array([1.0, 1.0, 0.0]))
    assert grey[0, 0, 0].tolist() == [123, 123, 123]  # 0.299, 0.587, 0.114
    flat = jitter(images, np.array([1.0, 0.0, 1.0]))
    assert np.unique(flat).tolist() == [103]  # the mean: 1240 / 12

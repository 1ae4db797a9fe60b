"""The tf.data pipeline; the only file here that starts TensorFlow."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco

from data_pipeline import numpy_pipeline
from data_pipeline.augment.geometry import crop_and_resize, source_positions
from data_pipeline.clip_sampling import plan_clip, video_extents
from data_pipeline.datasets.by_name import make_dataset
from data_pipeline.errors import DataError
from data_pipeline.pad import pad_clip, pad_clip_graph
from data_pipeline.pipeline import train_batches
from data_pipeline.rle_graph import decode_masks, run_tensors
from data_pipeline.schema import check_batch
from tests.recipes import data_settings
from vis_jax.formats.rle import runs_from_strings
from vis_jax.settings import to_dict


@pytest.fixture
def shapes():
    return data_settings(
        name="moving_shapes", frames=2, frame_range=3, short_side=(48,),
        canvas=(64, 96), instances=3, colour=0.2, batch_size=4,
        shapes=dict(height=48, width=80, length=4, num_videos=5),
    )  # fmt: skip


@pytest.fixture
def folder(shapes, write, annotations):
    """Settings for the folder of the fixtures, with every kind of change."""
    root = str(write(annotations, images="JPEGImages"))
    return replace(
        shapes, name="folder", root=root, short_side=(40, 70), colour=0.0,
        crop=(30, 60), canvas=(80, 96), batch_size=8,
    )  # fmt: skip


def test_graph_decodes_as_pycocotools():
    rng = np.random.default_rng(0)
    masks = (
        rng.random((6, 13, 17)) < np.array([0, 0.05, 0.3, 0.5, 0.9, 1])[:, None, None]
    )
    rles = [coco.encode(np.asfortranarray(m, np.uint8)) for m in masks]
    runs = run_tensors(runs_from_strings([r["counts"] for r in rles], 13 * 17))
    index = np.array([[0, 1, 2], [5, 4, 3], [-1, 2, -1]], np.int32)
    padded = np.concatenate([masks, np.zeros((1, 13, 17), bool)])
    for (top, h), (left, w) in (((0, 13), (0, 17)), ((3, 7), (5, 9))):
        for size in ((h, w), (5, 4), (30, 40), (4, 60), (1, 1)):
            rows = source_positions(top, h, size[0])
            columns = source_positions(left, w, size[1])
            decoded = decode_masks(
                runs, tf.constant(index), height=13, rows=rows, columns=columns
            )
            expected = padded[index][..., rows.numpy(), :][..., columns.numpy()]
            np.testing.assert_array_equal(decoded, expected)
    none = decode_masks(
        runs, tf.zeros([0, 3], tf.int32), height=13, rows=rows, columns=columns
    )
    assert none.shape == (0, 3, 1, 1)


def test_resizing_is_pillows_up_to_rounding():
    frame = np.random.default_rng(0).integers(0, 256, (45, 79, 3), np.uint8)
    # Odd sides: no centre of a target pixel lies between two source pixels.
    for crop, size in (((0, 0, 45, 79), (30, 53)), ((5, 9, 31, 61), (42, 77))):
        top, left, height, width = crop
        image = Image.fromarray(frame[top : top + height, left : left + width])
        resized = crop_and_resize(
            tf.constant(frame), tf.constant(crop), tf.constant(size)
        )
        bilinear = image.resize(size[::-1], Image.Resampling.BILINEAR)
        difference = np.abs(resized.numpy().astype(int) - np.asarray(bilinear))
        assert difference.max() <= 1
        nearest = np.asarray(image.resize(size[::-1], Image.Resampling.NEAREST))
        rows = source_positions(top, height, size[0]).numpy()
        columns = source_positions(left, width, size[1]).numpy()
        np.testing.assert_array_equal(frame[rows][:, columns], nearest)


def test_both_pipelines_make_the_same_batches_of_shapes(shapes):
    dataset = make_dataset(shapes)
    ours = train_batches(dataset, shapes, seed=3, start_step=1)
    plain = numpy_pipeline.train_batches(dataset, shapes, seed=3, start_step=1)
    for a, b in islice(zip(ours, plain, strict=False), 3):
        check_batch(a, B=4, T=2, M=3, H=64, W=96)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize("kind", ["run", "steps"])
def test_both_pipelines_pad_videos_that_end_early(shapes, kind):
    drawn = dict(height=48, width=80, length=(2, 6), num_videos=5)
    fields = dict(sampling={"kind": kind}, frames=4, shapes=drawn, colour=0.3)
    fields["flip_per"] = "frame" if kind == "steps" else "clip"
    shapes = data_settings(**{**to_dict(shapes), **fields})
    dataset = make_dataset(shapes)
    ours = train_batches(dataset, shapes, seed=3, start_step=1)
    plain = numpy_pipeline.train_batches(dataset, shapes, seed=3, start_step=1)
    lengths = set()
    for a, b in islice(zip(ours, plain, strict=False), 3):
        check_batch(a, B=4, T=4, M=3, H=64, W=96)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
        lengths |= set(a["frame_valid"].sum(1).tolist())
    assert {2, 4} <= lengths


def test_frames_of_a_folder_are_padded(folder):
    folder = data_settings(
        **{**to_dict(folder), "sampling": {"kind": "run"}, "frames": 8}
    )
    dataset = make_dataset(folder)
    batches = list(islice(train_batches(dataset, folder, seed=1, start_step=0), 2))
    for batch in batches:
        check_batch(batch, B=8, T=8, M=3)
        assert (batch["frame_valid"].sum(1) == 6).all()  # the length of the videos
    again = next(train_batches(dataset, folder, seed=1, start_step=1))
    for key, array in again.items():
        np.testing.assert_array_equal(array, batches[1][key])


def test_zoom_is_a_crop_and_a_resize(folder):
    folder = replace(folder, zoom=(0.6, 3.0), crop=None, canvas=(60, 90), flip=0.0)
    dataset = make_dataset(folder)
    batch = next(train_batches(dataset, folder, seed=0, start_step=0))
    check_batch(batch, B=8, T=2, M=3, H=60, W=90)
    cut = 0
    for position, images in enumerate(batch["images"]):
        plan = plan_clip(0, position, video_extents(dataset), folder)
        height, width = plan.size
        assert batch["sizes"][position].tolist() == [height, width]
        frames = dataset.read_frames(plan.video, plan.frame_ids)
        for image, frame in zip(images[:, :height, :width], frames, strict=True):
            args = (tf.constant(x) for x in (frame, plan.crop, plan.size))
            # JPEG decoders may differ by a grey level.
            difference = image.astype(int) - crop_and_resize(*args).numpy()
            assert np.abs(difference).max() <= 2
        rows = source_positions(plan.crop[0], plan.crop[2], height).numpy()
        columns = source_positions(plan.crop[1], plan.crop[3], width).numpy()
        for m in np.flatnonzero(batch["instance_valid"][position]):
            track = batch["track_ids"][position, m] - 1
            masks = dataset.truth(plan.video).segmentations[track]
            for t, frame in enumerate(plan.frame_ids):
                if masks[frame] is None:
                    continue
                whole = coco.decode(masks[frame]).astype(bool)
                found = batch["masks"][position, m, t, :height, :width]
                np.testing.assert_array_equal(found, whole[rows][:, columns])
        cut += plan.crop[2:] != (48, 64)
    assert 0 < cut < 8


def test_shapes_can_be_resized(shapes):
    shapes = replace(shapes, short_side=(30, 60), crop=(20, 40))
    batch = next(train_batches(make_dataset(shapes), shapes, seed=0, start_step=0))
    check_batch(batch, B=4, T=2, M=3, H=64, W=96)


def test_pixels_masks_and_boxes_move_as_one(folder):
    """The colour of a pixel says whose it is: see the fixture."""
    dataset = make_dataset(folder)
    channel = {(0, 1): 0, (0, 2): 1, (1, 1): 2}  # by number of tracks, track id
    seen, flips = set(), 0
    for batch in islice(train_batches(dataset, folder, seed=0, start_step=0), 4):
        check_batch(batch, B=8, T=2, M=3, H=80, W=96)
        for b in range(8):
            blue = batch["images"][b, ..., 2].max() > 200
            for m in np.flatnonzero(batch["instance_valid"][b]):
                key = (int(blue), int(batch["track_ids"][b, m]))
                seen.add((key, int(batch["labels"][b, m])))
                pixels = batch["images"][b, ..., channel[key]] > 127
                masks = batch["masks"][b, m]
                # Bilinear pixels and nearest masks differ by less than one pixel.
                assert (pixels ^ masks).sum() <= 2 * _outline(masks)
                for t in np.flatnonzero(batch["present"][b, m]):
                    y, x = np.nonzero(masks[t])
                    box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
                    assert batch["boxes"][b, m, t].tolist() == box
            flips += _moves_left(batch, b)
    assert seen == {((0, 1), 1), ((0, 2), 0), ((1, 1), 1)}
    assert flips > 0


def _outline(masks: np.ndarray) -> int:
    """Pixels of a mask next to other pixels, over all frames."""
    padded = np.pad(masks, [(0, 0), (1, 1), (1, 1)])
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1]
    inner &= padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    return int((masks & ~inner).sum())


def _moves_left(batch: dict, b: int) -> bool:
    """The red box moves right with time, unless the clip is mirrored."""
    red = batch["images"][b, ..., 0] > 200
    if not red.any((1, 2)).all():
        return False
    centres = [np.nonzero(frame)[1].mean() for frame in red]
    return centres[-1] < centres[0] - 0.5


def test_a_run_can_be_taken_up_and_shared_by_hosts(folder):
    dataset = make_dataset(folder)
    batches = list(islice(train_batches(dataset, folder, seed=1, start_step=0), 3))
    shares = [
        next(
            train_batches(
                dataset, folder, seed=1, start_step=2, host_index=k, host_count=2
            )
        )
        for k in range(2)
    ]
    for key, array in batches[2].items():
        joined = np.concatenate([share[key] for share in shares])
        np.testing.assert_array_equal(joined, array)


def test_crowds_are_dropped_and_the_largest_kept(folder, write, annotations):
    annotations["annotations"][2]["iscrowd"] = 1
    write(annotations)
    folder = replace(folder, instances=1, crop=None, flip=0.0, short_side=(48,))
    batch = next(train_batches(make_dataset(folder), folder, seed=0, start_step=0))
    check_batch(batch, B=8, T=2, M=1)
    blue = batch["images"][..., 2].max((1, 2, 3)) > 200
    assert 0 < blue.sum() < 8
    assert not batch["instance_valid"][blue].any()
    assert batch["instance_valid"][~blue].all()


def test_the_graph_pads_as_numpy():
    """More instances than slots, of which the largest are not the first."""
    rng = np.random.default_rng(0)
    shares = np.array([0.1, 0.0, 0.6, 0.3, 0.6, 0.9])[:, None, None, None]
    arrays = dict(
        images=rng.integers(0, 256, (2, 10, 12, 3), np.uint8),
        masks=rng.random((6, 2, 10, 12)) < shares,
        labels=rng.integers(0, 5, 6, np.int32),
        track_ids=np.arange(1, 7, dtype=np.int32),
    )
    tensors = {name: tf.constant(array) for name, array in arrays.items()}
    for slots in (3, 8):
        sizes = dict(frames=3, canvas=(16, 16), instances=slots)
        expected = pad_clip(**arrays, **sizes)
        found = pad_clip_graph(**tensors, **sizes)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
        kept = [3, 5, 6] if slots == 3 else [1, 3, 4, 5, 6]
        assert found["track_ids"].numpy().tolist()[: len(kept)] == kept


@pytest.mark.parametrize("defect", ["missing", "cut off", "of another size"])
def test_a_bad_image_names_file_and_video(folder, tmp_path, defect):
    for file in (tmp_path / "JPEGImages/second").iterdir():
        if defect == "missing":
            file.unlink()
        elif defect == "cut off":
            file.write_bytes(file.read_bytes()[:700])
        else:
            Image.new("RGB", (64, 50)).save(file)
    batches = train_batches(make_dataset(folder), folder, seed=0, start_step=0)
    with pytest.raises(DataError, match=r"second/000..\.jpg, video second"):
        next(batches)

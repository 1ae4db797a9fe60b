"""A data set written by hand, in no way known to the library, goes all the way."""

import importlib

import numpy as np
import pytest
from pycocotools import mask as coco

from data_pipeline import numpy_pipeline
from data_pipeline.clip_sources import ReadSource, source_of
from data_pipeline.datasets.clip_arrays import clip_of_truth
from data_pipeline.datasets.dataset import Category, Dataset, Video, VideoTruth
from data_pipeline.schema import check_batch
from tests.recipes import recipe
from vis_jax.evaluate.infer import make_stream
from vis_jax.evaluate.loop import evaluate
from vis_jax.systems import SYSTEMS
from vis_jax.training.loop import train

HEIGHT, WIDTH, LENGTH = 64, 96, 3


class Squares:
    """Videos of a red square that moves right and, in odd ones, a green crowd."""

    categories = (Category(3, "red"), Category(8, "green"))
    videos = tuple(
        Video(
            10 + k,
            f"squares {k}",
            HEIGHT,
            WIDTH,
            LENGTH,
            (f"{k}/a.jpg", f"{k}/b.jpg", f"{k}/c.jpg"),
        )
        for k in range(4)
    )

    def read_frames(self, index, frame_ids):
        frames = np.full((len(frame_ids), HEIGHT, WIDTH, 3), 60, np.uint8)
        for image, frame in zip(frames, frame_ids, strict=True):
            for label, mask in enumerate(self._masks(index)):
                image[mask[frame], label] = 255
        return frames

    def truth(self, index):
        masks = self._masks(index)
        boxes = [[coco.toBbox(_encoded(m)) for m in track] for track in masks]
        boxes = np.array(boxes, np.float32)
        boxes[..., 2:] += boxes[..., :2]
        return VideoTruth(
            labels=np.arange(len(masks), dtype=np.int32),
            track_ids=np.arange(1, len(masks) + 1, dtype=np.int32),
            crowd=np.arange(len(masks)) == 1,
            boxes=boxes,
            present=np.ones((len(masks), LENGTH), bool),
            occlusion=np.full((len(masks), LENGTH), np.nan, np.float32),
            segmentations=tuple(tuple(map(_encoded, track)) for track in masks),
        )

    def read_clip(self, index, frame_ids):
        images = self.read_frames(index, frame_ids)
        return clip_of_truth(images, self.truth(index), frame_ids)

    def _masks(self, index):
        masks = np.zeros((1 + index % 2, LENGTH, HEIGHT, WIDTH), bool)
        for frame in range(LENGTH):
            x = 10 * frame + 4 * index
            masks[0, frame, 8:32, x : x + 24] = True
            masks[1:, frame, 40:60, 30:60] = True
        return masks


def _encoded(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))


def _run(loader, **changes):
    fields = {
        "data.loader": loader, "data.flip": 0.0, "data.colour": 0.0, "data.frames": 4,
        "data.sampling": {"kind": "run"}, "model.num_classes": 2, "num_steps": 2,
        "optimizer.decay_at": (), "train.checkpoint_every": 2, "train.eval_every": 0,
    }  # fmt: skip
    return recipe("mask_track_rcnn_shapes", "debug", fields | changes)


def _batches(run, dataset, start=0):
    loaders = {"tf": "data_pipeline.pipeline", "numpy": "data_pipeline.numpy_pipeline"}
    pipeline = importlib.import_module(loaders[run.data.loader])
    return pipeline.train_batches(dataset, run.data, seed=run.seed, start_step=start)


def test_a_class_that_has_the_members_is_a_data_set():
    assert isinstance(Squares(), Dataset)
    assert isinstance(source_of(Squares(), 2), ReadSource)


def test_both_loaders_read_it():
    dataset, found = Squares(), []
    for loader in ("tf", "numpy"):
        batch = next(_batches(_run(loader), dataset))
        check_batch(batch, B=2, T=4)
        found.append(batch)
    for key, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][key], err_msg=key)
    batch = found[0]
    assert batch["frame_valid"].tolist() == [[True, True, True, False]] * 2
    assert batch["instance_valid"].sum(axis=1).tolist() == [1, 1]  # no crowd
    red = (batch["images"] == [255, 60, 60]).all(axis=-1)
    np.testing.assert_array_equal(red, batch["masks"][:, 0])


@pytest.mark.parametrize("loader", ["tf", "numpy"])
def test_it_is_trained_on_evaluated_and_predicted(tmp_path, loader):
    run, dataset = _run(loader), Squares()
    system = SYSTEMS[run.system].build(run)
    state = train(
        run, system, lambda start: _batches(run, dataset, start), str(tmp_path / "run")
    )
    assert int(state.step) == 2
    stream = make_stream(system, state.variables, run.test)
    report = evaluate(dataset, stream, tmp_path, top=10, run_id="a", progress=False)
    assert 0 <= report["AP"] <= 1
    assert (tmp_path / "results.json").stat().st_size > 2


@pytest.mark.usefixtures("types_unchecked")
def test_what_is_missing_or_wrong_is_named():
    class Unread:
        categories, videos = Squares.categories, Squares.videos

    class Wrong(Squares):
        def read_clip(self, index, frame_ids):
            clip = super().read_clip(index, frame_ids)
            return clip._replace(masks=clip.masks.astype(np.uint8))

    message = r"read_clip, video squares \d, masks: expected bool \[1, 3, 64, 96\], got"
    for loader in ("tf", "numpy"):
        with pytest.raises(
            ValueError, match="got Unread without read_frames, truth, r"
        ):
            _batches(_run(loader), Unread())
        with pytest.raises(ValueError, match=message):
            next(_batches(_run(loader), Wrong()))


def test_the_truth_of_a_reader_makes_the_same_clips(tmp_path):
    """A folder, and what is read of it through the truth."""
    from data_pipeline.datasets.ytvis import YouTubeVis
    from data_pipeline.write.folder import write_dataset

    write_dataset(tmp_path / "set", Squares(), progress=False)
    folder = YouTubeVis(tmp_path / "set", "train", part="all")
    for index in range(4):
        ids = np.array([0, 2, 2])
        direct = folder.read_clip(index, ids)
        through = clip_of_truth(direct.images, folder.truth(index), ids)
        for a, b in zip(direct, through, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(
            direct.masks, Squares().read_clip(index, ids).masks
        )
    run = _run("numpy")
    check_batch(
        next(numpy_pipeline.train_batches(folder, run.data, seed=0, start_step=0))
    )

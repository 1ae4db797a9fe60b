"""Makes batches of training clips without TensorFlow, at native resolution."""

import os
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from data_pipeline.augment.colour import jitter
from data_pipeline.clip_sampling import ClipPlan, plan_batches
from data_pipeline.clip_source import Mixture
from data_pipeline.datasets.clip_arrays import checked_clip
from data_pipeline.datasets.dataset import Dataset, check_dataset
from data_pipeline.pad import pad_clip
from data_pipeline.settings import Settings

_BATCHES_AHEAD = 2


def train_batches(
    dataset: Dataset,
    clips: Settings,
    *,
    seed: int,
    start_step: int,
    host_index: int = 0,
    host_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Like `pipeline.train_batches`, at native resolution through `read_clip`.

    Clips are the same and, without resizing, so are pixels, except that JPEG decoders
    may differ by a grey level.

    Args:
      dataset: must not be a `Mixture`.
      clips: see `settings.Settings`; `short_side` must be that of the videos.
      seed, start_step, host_index, host_count: see `pipeline.train_batches`.

    Raises:
      ValueError: not a data set, or a setting is invalid or requires resizing.
    """
    check_dataset(dataset)
    if isinstance(dataset, Mixture):
        raise ValueError(
            "data.loader: expected 'tf' for several sets or images, got 'numpy'"
        )
    plans = plan_batches(
        dataset,
        clips,
        seed=seed,
        start_step=start_step,
        host_index=host_index,
        host_count=host_count,
    )
    _check_native_size(dataset, clips)
    return _batches(dataset, clips, plans)


def _batches(
    dataset: Dataset, clips: Settings, plans: Iterator[list[ClipPlan]]
) -> Iterator[dict[str, np.ndarray]]:
    """Makes clips in threads, some batches ahead, and yields them in order."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    # At interpreter exit this generator may be closed after the modules that `shutdown`
    # needs are gone. A finalizer runs before that, and only once.
    stop = weakref.finalize(pool, pool.shutdown, cancel_futures=True)
    waiting: deque[list[Future]] = deque()
    try:
        while True:
            missing = _BATCHES_AHEAD - len(waiting)
            for batch in islice(plans, missing):
                waiting.append(
                    [pool.submit(_make_clip, dataset, clips, p) for p in batch]
                )
            made = [future.result() for future in waiting.popleft()]
            yield {key: np.stack([clip[key] for clip in made]) for key in made[0]}
    finally:
        stop()


def _make_clip(
    dataset: Dataset, clips: Settings, plan: ClipPlan
) -> dict[str, np.ndarray]:
    clip = checked_clip(dataset, plan.video, plan.frame_ids)
    images, masks = clip.images, clip.masks
    if clips.colour > 0:
        images = jitter(images, np.array(plan.colour, np.float32))
    flip = plan.flip[: len(images)]
    if flip.any():
        images = np.where(flip[:, None, None, None], images[:, :, ::-1], images)
        masks = np.where(flip[:, None, None], masks[..., ::-1], masks)
    return pad_clip(
        images,
        masks,
        labels=clip.labels,
        track_ids=clip.track_ids,
        frames=clips.frames,
        canvas=clips.canvas,
        instances=clips.instances,
    )


def _check_native_size(dataset: Dataset, clips: Settings) -> None:
    if clips.crop is not None:
        raise ValueError(
            f"data.crop: expected None without TensorFlow, got {clips.crop}"
        )
    if clips.zoom is not None:
        raise ValueError(
            f"data.zoom: expected None without TensorFlow, got {clips.zoom}"
        )
    for video in dataset.videos:
        short, long = sorted((video.height, video.width))
        if set(clips.short_side) != {short}:
            raise ValueError(
                f"data.short_side: expected ({short},), the size of the videos, as"
                f" nothing is resized without TensorFlow; got {clips.short_side}"
            )
        if long > clips.long_side:
            raise ValueError(
                f"data.long_side: expected at least {long}, got {clips.long_side}"
            )
        if video.height > clips.canvas[0] or video.width > clips.canvas[1]:
            raise ValueError(
                f"data.canvas: expected at least {(video.height, video.width)},"
                f" got {clips.canvas}"
            )

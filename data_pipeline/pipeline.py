"""Makes batches of training clips with tf.data: plan, read, augment, pad, batch."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
import tensorflow as tf

from data_pipeline.augment.colour import jitter_graph
from data_pipeline.augment.geometry import flip_clip
from data_pipeline.clip_sampling import ClipPlan, batch_positions, plan_batches
from data_pipeline.clip_source import ClipSource, Features, Mixture
from data_pipeline.clip_sources import source_of
from data_pipeline.datasets.dataset import Dataset, check_dataset
from data_pipeline.pad import pad_clip_graph
from data_pipeline.settings import Settings

_BATCHES_AHEAD = 2

Sources = tuple[ClipSource, ...]  # one for each part of a data set


def train_batches(
    dataset: Dataset,
    clips: Settings,
    *,
    seed: int,
    start_step: int,
    host_index: int = 0,
    host_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this host's share of the batches of steps `start_step`, + 1, ..

    A batch depends only on the seed and its step: a resumed run sees the batches of an
    unbroken one, and the concatenated shares of all hosts equal the batch of a single
    host. Crowd annotations and instances without pixels in the clip are dropped; if
    more than `clips.instances` remain, the largest are kept.

    Args:
      dataset: read through its `clip_source` if it has one, otherwise `read_clip`; or a
        `Mixture` of several.
      clips: see `settings.Settings`; `batch_size` counts the clips of all hosts.
      seed: seed of the run.
      start_step: the first step.
      host_index, host_count: select the share.

    Returns:
      An endless iterator over arrays as in `schema.BATCH`.

    Raises:
      ValueError: not a data set, or an invalid setting; while iterating, DataError for
        a file that cannot be read.
    """
    check_dataset(dataset)
    plans = partial(
        _plans,
        dataset,
        clips,
        seed=seed,
        host_index=host_index,
        host_count=host_count,
    )
    plans(start_step)  # reports wrong arguments here, not in the graph
    count = clips.batch_size // host_count
    return _batches(dataset, clips, plans, start_step, count)


def planned_clips(
    dataset: Dataset, clips: Settings, plans: Sequence[ClipPlan]
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the clip of each plan as `train_batches` makes it, in a batch of its own.

    Args:
      dataset, clips: see `train_batches`.
      plans: plans of the clips.
    """

    def from_clip(first: int) -> Iterator[list[ClipPlan]]:
        return iter([[plan] for plan in plans[first:]])

    return islice(_batches(dataset, clips, from_clip, 0, 1), len(plans))


def _batches(
    dataset: Dataset,
    clips: Settings,
    plans: Callable[[int], Iterator[list[ClipPlan]]],
    start_step: int,
    count: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of `count` clips from a step on."""
    _leave_accelerators()
    with tf.device("CPU"):
        sources = _sources(dataset, clips.frames)
    data = _clips(sources, clips, lambda: plans(start_step))
    data = data.batch(count, drop_remainder=True)
    batches = data.prefetch(_BATCHES_AHEAD).as_numpy_iterator()
    return _with_clear_errors(batches, sources, plans, start_step)


def _plans(
    dataset: Dataset,
    clips: Settings,
    start_step: int,
    *,
    seed: int,
    host_index: int,
    host_count: int,
) -> Iterator[list[ClipPlan]]:
    """Yields the plans of each batch."""
    place = dict(
        seed=seed, start_step=start_step, host_index=host_index, host_count=host_count
    )
    if not isinstance(dataset, Mixture):
        return plan_batches(dataset, clips, **place)
    plan = dataset.plan_clip
    batches = batch_positions(clips, **place)
    return ([plan(seed, one, clips) for one in positions] for positions in batches)


def _sources(dataset: Dataset, frames: int) -> Sources:
    if isinstance(dataset, Mixture):
        return dataset.clip_sources(frames)
    return (source_of(dataset, frames),)


def _clips(
    sources: Sources, clips: Settings, plans: Callable[[], Iterator[list[ClipPlan]]]
) -> tf.data.Dataset:
    """Returns all clips in order."""
    streams = [
        _stream(part, source, clips, plans()) for part, source in enumerate(sources)
    ]
    if len(streams) == 1:
        return streams[0]
    return tf.data.Dataset.choose_from_datasets(streams, _turns(plans()))


def _stream(
    part: int, source: ClipSource, clips: Settings, plans: Iterator[list[ClipPlan]]
) -> tf.data.Dataset:
    """Returns the clips of one part, in order."""
    chosen = (plan for batch in plans for plan in batch if plan.part == part)
    features = (source.features(plan) for plan in chosen)
    data = tf.data.Dataset.from_generator(
        lambda: features, output_signature=source.signature
    )
    # It has no tensor-dependent branches, so autograph would only cost seconds.
    make_clip = tf.autograph.experimental.do_not_convert(
        partial(_make_clip, source, clips)
    )
    return data.map(
        make_clip,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _turns(plans: Iterator[list[ClipPlan]]) -> tf.data.Dataset:
    """Returns the part of each clip, in order."""
    turns = (plan.part for batch in plans for plan in batch)
    signature = tf.TensorSpec([], tf.int64)
    return tf.data.Dataset.from_generator(lambda: turns, output_signature=signature)


def _make_clip(
    source: ClipSource, clips: Settings, features: Features
) -> dict[str, tf.Tensor]:
    """Makes one clip in the form of the schema, without the batch axis."""
    clip = source.read(features)
    real = features["real"]
    images, masks = clip.images[:real], clip.masks[:, :real]
    if clips.colour > 0:
        images = jitter_graph(images, features["colour"])
    images, masks = flip_clip(images, masks, features["flip"][:real])
    return pad_clip_graph(
        images,
        masks,
        labels=clip.labels,
        track_ids=clip.track_ids,
        frames=clips.frames,
        canvas=clips.canvas,
        instances=clips.instances,
    )


def _with_clear_errors(
    batches: Iterator[dict[str, np.ndarray]],
    sources: Sources,
    plans: Callable[[int], Iterator[list[ClipPlan]]],
    step: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches; if one fails, finds and reports the frame at fault.

    TensorFlow's errors name neither the file nor the video. As the order of clips is
    known, those of the failed batch are read again outside the graph.
    """
    while True:
        try:
            batch = next(batches)
        except tf.errors.OpError as error:
            for plan in next(plans(step)):
                sources[plan.part].read_outside(plan)
            raise ValueError(f"batch of step {step}: {error.message}") from error
        yield batch
        step += 1


def _leave_accelerators() -> None:
    """Keeps TensorFlow from allocating memory of the devices that JAX uses."""
    if tf.config.get_visible_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")

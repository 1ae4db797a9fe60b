"""Which clips of a stream are of videos and which of images set in motion."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data_pipeline.augment.pseudo_clip import Motion, draw_views
from data_pipeline.clip_sampling import (
    ClipPlan,
    generator,
    plan_clip,
    video_extents,
)
from data_pipeline.datasets.joint import JointClips
from data_pipeline.settings import Settings

_EPOCH, _CLIP, _VIEWS = 2, 3, 4  # apart from the random streams of videos


class Place(NamedTuple):
    """A clip of the stream of both."""

    still: bool
    number: int  # of clips of the same kind before it


def place_of(position: int, share: float) -> Place:
    """Spreads the share of images evenly: any run of clips has it, up to one clip.

    Args:
      position: 0, 1, ..: clips before this one, over all hosts.
      share: of the clips that are of images.
    """
    before = math.floor(position * share)
    still = math.floor((position + 1) * share) > before
    return Place(still, before if still else position - before)


def plan_still(
    seed: int, position: int, extents: np.ndarray, config: Settings, motion: Motion
) -> ClipPlan:
    """Draws the clip at one position of the stream of images, as `plan_clip`.

    An image is planned as a video of one frame; the views of it make the clip.
    """
    clip = plan_clip(seed, position, extents, config, streams=(_EPOCH, _CLIP))
    rng = generator(_VIEWS, seed, position)
    return clip._replace(
        frame_ids=np.zeros(config.frames, np.int32),
        views=draw_views(rng, config.frames, motion),
    )


def plan_joint(
    dataset: JointClips, config: Settings, *, seed: int, positions: Iterator[range]
) -> Iterator[list[ClipPlan]]:
    """Yields the plans of this host's share of each batch.

    Args:
      dataset: videos and images.
      config: of the clips.
      seed: of the run.
      positions: of the clips of each batch.
    """
    stills = video_extents(dataset.stills)
    videos = stills[:0] if dataset.clips is None else video_extents(dataset.clips)
    for batch in positions:
        places = [place_of(position, dataset.share) for position in batch]
        yield [
            plan_still(seed, number, stills, config, dataset.motion)
            if still
            else plan_clip(seed, number, videos, config)
            for still, number in places
        ]

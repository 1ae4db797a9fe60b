"""Which clips of a stream are of videos and which of images set in motion."""

import math
from typing import NamedTuple

import numpy as np

from data_pipeline.augment.pseudo_clip import Motion, draw_views
from data_pipeline.clip_sampling import ClipPlan, generator, plan_clip
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

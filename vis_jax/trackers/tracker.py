"""What links detections to tracks: all that a tracker owes the systems."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vis_jax.settings import Weight, section
from vis_jax.structures import Clip, Detections
from vis_jax.typing import Array, Bool, Int32


@section
class Cues:
    """Weights of the cues of Eq. 3 of MaskTrack R-CNN; 0 leaves a cue out."""

    detection: Weight = 1.0  # alpha, of the detection's score
    iou: Weight = 2.0  # beta, of its overlap with the last box of the track
    category: Weight = 10.0  # gamma, of having the track's category


class Tracked(NamedTuple):
    """Detections with an identity."""

    track_ids: Int32[Array, "T N"]  # 1, 2, .. within the video; 0 = not shown
    shown: Detections  # [T, N]: those given, or the tracker's own masks
    lost: Int32[Array, ""]  # objects that found no free track up to now


class Tracker(NamedTuple):
    """Two pure functions on one video, whose frames come in order.

    `track` gets all frames at once where `offline`; otherwise any number at a time.
    Identities are below or equal to the number of slots the tracker was built with.
    """

    # (Clip, Detections [T, N], for their shapes) -> state of fixed size
    start: Callable[[Clip, Detections], Any]
    # (variables, state, Clip, Detections [T, N]) -> state, Tracked
    track: Callable[[dict, Any, Clip, Detections], tuple[Any, Tracked]]
    offline: bool


def scan_frames(
    step: Callable,
    state: Any,
    detections: Detections,
    frame_valid: Bool[Array | np.ndarray, "T"],
) -> tuple[Any, Int32[Array, "T N"]]:
    """Runs `step(state, detections [N]) -> state, track_ids [N]` over frames.

    In frames that are padding nothing is detected.

    Returns:
      The last state, and the ids.
    """
    valid = detections.valid & frame_valid[:, None]
    return jax.lax.scan(step, state, detections._replace(valid=valid))

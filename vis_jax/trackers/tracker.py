"""The interface of trackers, which link detections into tracks."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from vis_jax.settings import Weight, section
from vis_jax.structures import Clip, Detections
from vis_jax.typing import Array, Bool, Int32


@section
class Cues:
    """Weights of the cues in Eq. 3 of MaskTrack R-CNN; 0 ignores a cue."""

    detection: Weight = 1.0  # alpha, detection score
    iou: Weight = 2.0  # beta, overlap with the track's last box
    category: Weight = 10.0  # gamma, same category as the track


class Tracked(NamedTuple):
    """Detections with an identity."""

    track_ids: Int32[Array, "T N"]  # 1, 2, .. within the video; 0 = dropped
    lost: Int32[Array, ""]  # objects so far without a free track
    # Output masks, if the tracker's own replace the detections.
    shown: Detections | None = None


@runtime_checkable
class Begin(Protocol):
    """Returns the state before the first frame of a video."""

    def __call__(self, clip: Clip, detections: Detections, /) -> Any:
        """Returns fixed-size arrays.

        Args:
          clip: the first clip; only its shapes are read.
          detections: [T, N], of its frames; only their shapes are read.

        Raises:
          ValueError: the detections lack features that the tracker compares.
        """
        ...


@runtime_checkable
class LinkFrames(Protocol):
    """Links the detections of the next frames to the tracks so far."""

    def __call__(
        self,
        variables: dict,
        state: Any,
        clip: Clip,
        detections: Detections,
        features: Any = None,
        /,
    ) -> tuple[Any, Tracked]:
        """Returns the state after the frames, and the identities.

        Args:
          variables: variables of the whole system, including the tracker's own
            parameters, if any.
          state: before the frames.
          clip: the frames.
          detections: [T, N], of these frames.
          features: the detector's features of the frames, if `Tracker.reads_features`;
            else None.
        """
        ...


class Tracker(NamedTuple):
    """Two pure functions on one video, whose frames come in order.

    Identities are at most the number of slots the tracker was built with.
    """

    start: Begin
    track: LinkFrames
    offline: bool = False  # gets all frames at once; otherwise any number at a time
    reads_features: bool = False
    draws: bool = False  # outputs its own masks


@runtime_checkable
class FrameStep(Protocol):
    """Links the detections [N] of one frame."""

    def __call__(
        self, state: Any, detections: Detections, /
    ) -> tuple[Any, Int32[Array, "N"]]:
        """Returns the state after the frame, and the identities."""
        ...


def scan_frames(
    step: FrameStep,
    state: Any,
    detections: Detections,
    frame_valid: Bool[Array | np.ndarray, "T"],
) -> tuple[Any, Int32[Array, "T N"]]:
    """Runs `step(state, detections [N]) -> state, track_ids [N]` over frames.

    Nothing is detected in padded frames.

    Returns:
      The final state, and the ids.
    """
    valid = detections.valid & frame_valid[:, None]
    return jax.lax.scan(step, state, detections._replace(valid=valid))

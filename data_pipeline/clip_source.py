"""The contract of a source of training clips.

A source turns a plan into small features, in Python, and features into images and masks
at their final size, in a TensorFlow graph. This module does without TensorFlow, so that
data sets can name the contract; `clip_sources` has what fulfils it.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from data_pipeline.clip_sampling import ClipPlan
from data_pipeline.settings import Settings

Tensor = Any  # tf.Tensor; TensorFlow is not imported here
TensorSpec = Any  # tf.TensorSpec
Features = dict[str, Tensor]


class ClipTensors(NamedTuple):
    """A clip before padding; N objects, T frames, H W pixels after resizing."""

    images: Tensor  # uint8 [T, H, W, 3]
    masks: Tensor  # bool [N, T, H, W]
    labels: Tensor  # int32 [N]
    track_ids: Tensor  # int32 [N]


@runtime_checkable
class ClipSource(Protocol):
    """Makes clips of T frames out of plans."""

    signature: dict[str, TensorSpec]  # types of `features`

    def features(self, plan: ClipPlan) -> dict[str, Any]:
        """Returns the features of a clip for the graph, as small arrays and texts."""
        ...

    def read(self, features: Features) -> ClipTensors:
        """The clip, cut out and resized as the plan says; runs in the graph."""
        ...

    def read_outside(self, plan: ClipPlan) -> None:
        """Reads the frames outside the graph, for the sake of errors with a place.

        Raises:
          DataError: names the file, the video and what is wrong.
        """
        ...


@runtime_checkable
class HasClipSource(Protocol):
    """A data set that TensorFlow reads by itself, faster than through `read_clip`."""

    def clip_source(self, frames: int) -> ClipSource:
        """The source of clips of `frames` frames."""
        ...


@runtime_checkable
class Mixture(Protocol):
    """A data set of several parts, which says itself which clip is of which part."""

    def clip_sources(self, frames: int) -> tuple[ClipSource, ...]:
        """The source of each part, for clips of `frames` frames."""
        ...

    def plan_clip(self, seed: int, position: int, clips: Settings) -> ClipPlan:
        """The clip at one position of the stream; `part` says of which part it is."""
        ...

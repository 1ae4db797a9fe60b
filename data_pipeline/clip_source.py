"""Interface of sources of training clips.

A source turns a plan into small features, in Python, and features into images and masks
at their final size, in a TensorFlow graph. This module does not import TensorFlow, so
data sets can refer to the interface; `clip_sources` implements it.
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
    """Makes clips of T frames from plans."""

    signature: dict[str, TensorSpec]  # types of `features`

    def features(self, plan: ClipPlan) -> dict[str, Any]:
        """Returns the features of a clip for the graph, as small arrays and strings."""
        ...

    def read(self, features: Features) -> ClipTensors:
        """Reads, crops and resizes the clip according to its plan, in the graph."""
        ...

    def read_outside(self, plan: ClipPlan) -> None:
        """Reads the frames outside the graph, to get errors with a location.

        Raises:
          DataError: names the file, the video and the defect.
        """
        ...


@runtime_checkable
class HasClipSource(Protocol):
    """A data set with its own TensorFlow reader, faster than `read_clip`."""

    def clip_source(self, frames: int) -> ClipSource:
        """Returns the source of clips of `frames` frames."""
        ...


@runtime_checkable
class Mixture(Protocol):
    """A data set of several parts that plans which part each clip is from."""

    def clip_sources(self, frames: int) -> tuple[ClipSource, ...]:
        """Returns the source of each part, for clips of `frames` frames."""
        ...

    def plan_clip(self, seed: int, position: int, clips: Settings) -> ClipPlan:
        """Plans the clip at one position of the stream; `part` is its part."""
        ...

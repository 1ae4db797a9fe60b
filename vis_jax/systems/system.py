"""The interface between a method and the rest of the library."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from vis_jax.settings import Count, Natural, section
from vis_jax.structures import Batch, Clip, LossAux, Predictions, Render, Window
from vis_jax.typing import Array, Float32, Int32, PRNGKeyArray, UInt8

Dtype = Literal["float32", "bfloat16"]
RETRAIN = " and train again"  # after a setting that a trained run cannot change


@runtime_checkable
class Init(Protocol):
    """Draws the variables, which depend only on the settings and the key."""

    def __call__(self, rng: PRNGKeyArray, batch: Batch, /) -> dict:
        """Returns {"params": .., and perhaps "batch_stats": ..}, float32.

        Args:
          rng: random key.
          batch: batch of any size; only its shapes are read.
        """
        ...


@runtime_checkable
class Loss(Protocol):
    """The training loss."""

    def __call__(
        self, variables: dict, batch: Batch, rng: PRNGKeyArray, /
    ) -> tuple[Float32[Array, ""], LossAux]:
        """Returns the loss, and the terms that sum to it.

        Args:
          variables: as `init` returns them. Training adds a collection "progress" with
            "step", the number of updates so far: int32.
          batch: clips with their ground truth.
          rng: random key.
        """
        ...


@runtime_checkable
class Start(Protocol):
    """Returns the state before the first clip of a video."""

    def __call__(self, clip: Clip, /) -> Any:
        """Returns fixed-size arrays that depend only on the clip's shapes."""
        ...


@runtime_checkable
class Step(Protocol):
    """Processes the next clip of a video."""

    def __call__(
        self, variables: dict, state: Any, clip: Clip, /
    ) -> tuple[Any, Predictions]:
        """Returns the state for the next clip, and the predictions so far."""
        ...


def check_classes(num_classes: int) -> None:
    """Raises ValueError if the number of classes is unknown."""
    if num_classes < 1:
        raise ValueError(f"model.num_classes: expected at least 1, got {num_classes}")


@runtime_checkable
class Encode(Protocol):
    """Computes the features of frames by a frozen encoder."""

    def __call__(
        self,
        variables: dict,
        images: UInt8[Array, "N H W 3"],
        sizes: Int32[Array, "N 2"],
        /,
    ) -> Float32[Array, "N L S C"]:
        """Returns tokens of L levels; frames are independent.

        Args:
          variables: as `init` returns them.
          images: frames on the canvas of the training.
          sizes: height and width of their content, at the top left.
        """
        ...


class Encoder(NamedTuple):
    """A frozen encoder, whose features can be stored; see `Batch.features`."""

    encode: Encode
    part: str  # name of its part of the parameters
    # Settings that features depend on, by path.
    settings: Mapping[str, Any]
    # (height, width of the content, of the canvas) -> bool [S], tokens of the content;
    # the values of others do not matter.
    inside: Callable[[tuple[int, int], tuple[int, int]], np.ndarray]


class System(NamedTuple):
    """Four pure functions, with the conventions for calling them.

    `start` and `step` work on one video; its clips have one shape and come in temporal
    order, as `window` says.
    """

    init: Init
    loss: Loss
    start: Start
    step: Step
    window: Window
    render: Render = Render()
    # Setting that limits the number of tracks, with RETRAIN if parameters depend on it,
    # for the warning about objects without a free slot.
    limit: str = "test.tracks"
    encoder: Encoder | None = None  # None: no part can be frozen as an encoder
    # `loss.chunk`, a divisor of the frames of a training clip; 0: they are not cut.
    chunk: int = 0


def weighted(aux: LossAux, weights: Any) -> tuple[Float32[Array, ""], LossAux]:
    """Applies the weights and returns the loss with its terms.

    Args:
      aux: with unweighted terms.
      weights: settings with a weight named after each term.
    """
    terms = {name: getattr(weights, name) * x for name, x in aux.terms.items()}
    total = sum(terms.values(), start=jnp.float32(0.0))
    return total, aux._replace(terms=terms)


@section
class TestSettings:
    """`test`: the videos to evaluate on, and how a video becomes clips."""

    __test__ = False  # not a test class for pytest, despite its name

    split: str = "valid"  # split of the data set; or held_out, all, train
    videos: Natural = 0  # number of videos, from the first; 0 = all
    short_side: Count = 360  # pixels that videos are resized to, while ..
    long_side: Count = 1333  # .. the long side stays within this
    # Height and width that frames are stretched to; () = keep the aspect ratio, as
    # above.
    size: tuple[Count, ...] = ()
    top: Count = 10  # best tracks returned per video
    chunk: Count = 8  # frames whose features are computed at once; bounds memory
    # video: the whole video is one clip; clip: consecutive short clips.
    mode: Literal["video", "clip"] = "video"
    # Lengths that whole videos are padded to, so that few programs are compiled.
    frame_buckets: tuple[Count, ...] = (8, 16, 24, 36, 48, 64, 96)
    clip_length: Count = 5  # frames of a clip
    # Short sides for test-time augmentation, including test.short_side; () = none.
    tta: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        if not self.frame_buckets:
            raise ValueError("frame_buckets: expected at least one length, got ()")
        if len(self.size) not in (0, 2):
            raise ValueError(f"size: expected (height, width) or (), got {self.size}")
        if self.tta and self.short_side not in self.tta:
            raise ValueError(
                f"tta: expected to contain test.short_side, {self.short_side}, whose"
                f" result is the pivot, got {self.tta}"
            )
        if self.tta and self.mode == "clip":
            raise ValueError(f"tta: expected () with test.mode 'clip', got {self.tta}")
        if self.tta and self.size:
            raise ValueError(f"tta: expected () with test.size, got {self.tta}")


def window_of(test: TestSettings, stride: int | None = None) -> Window:
    """Returns the window that `test.mode` asks for.

    Args:
      test: settings of the config.
      stride: frames from one clip to the next; None: the clip length.
    """
    if test.mode == "video":
        return Window(None, None, buckets=test.frame_buckets)
    return Window(test.clip_length, stride or test.clip_length)

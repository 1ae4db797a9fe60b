"""All that a method owes the rest of the library."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from vis_jax.settings import Count, Natural, section

Dtype = Literal["float32", "bfloat16"]


class System(NamedTuple):
    """Four pure functions; `step` works on one video, clip by clip.

    Clips have one shape, arrive in temporal order, may overlap, and together cover
    every frame. `start` makes the state before the first of them, of fixed size and
    only from the shapes of a clip: a system that reads a whole video as one clip keeps
    nothing and returns an empty tuple. A prediction for a frame is final once no later
    clip contains that frame.
    """

    init: Callable  # (rng, Batch) -> variables
    loss: Callable  # (variables, Batch, rng) -> float32 scalar, LossAux
    start: Callable  # (Clip) -> Tracks, empty and of fixed size
    step: Callable  # (variables, Tracks, Clip) -> Tracks, Predictions


@section
class TestSettings:
    """`test`: the videos to evaluate on, and how a video becomes clips."""

    __test__ = False  # not a class of tests, whatever pytest makes of the name

    split: str = "valid"  # of the data set; or held_out, all, train
    videos: Natural = 0  # the first ones of the split; 0 = all
    short_side: Count = 360  # pixels that videos are resized to, if ..
    long_side: Count = 1333  # .. the long side stays within these
    top: Count = 10  # tracks returned of a video, those with the best scores
    chunk: Count = 8  # frames whose features are computed at once; bounds memory
    # video: the whole video is one clip; clip: short clips, linked to each other.
    mode: Literal["video", "clip"] = "video"
    # Frames that whole videos are padded to, so that few programs are compiled.
    frame_buckets: tuple[Count, ...] = (8, 16, 24, 36, 48, 64, 96)
    clip_length: Count = 5  # frames of a clip
    clip_stride: Count = 1  # frames from one clip to the next
    # Short sides whose results are averaged, test.short_side among them; () = none.
    tta: tuple[Count, ...] = ()

    def __post_init__(self):
        if not self.frame_buckets:
            raise ValueError("frame_buckets: expected at least one length, got ()")
        if self.tta and self.short_side not in self.tta:
            raise ValueError(
                f"tta: expected to contain test.short_side, {self.short_side}, whose"
                f" result is the pivot, got {self.tta}"
            )
        if self.tta and self.mode == "clip":
            raise ValueError(f"tta: expected () with test.mode 'clip', got {self.tta}")

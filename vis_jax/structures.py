"""Data passed between the data pipeline, the systems and the loops.

Axes: B clips, T frames, M ground-truth instances, H W pixels of the padded frame (the
canvas), h w pixels of a system's mask resolution.
"""

from typing import Literal, NamedTuple

import numpy as np

from vis_jax.typing import Array, Bool, Float16, Float32, Int32, UInt8


class Batch(NamedTuple):
    """Clips with their ground truth, as described by `data_pipeline.schema`."""

    images: UInt8[Array, "B T H W 3"]
    frame_valid: Bool[Array, "B T"]
    sizes: Int32[Array, "B 2"]  # height, width of the content, at the top left
    masks: Bool[Array, "B M T H W"]
    boxes: Float32[Array, "B M T 4"]  # x1 y1 x2 y2 in canvas pixels; 0 if not present
    present: Bool[Array, "B M T"]  # the instance has at least one pixel in the frame
    labels: Int32[Array, "B M"]  # 0 .. K - 1
    track_ids: Int32[Array, "B M"]  # 1, 2, .. within the video; 0 = padding
    instance_valid: Bool[Array, "B M"]
    # Stored tokens of L levels of a frozen encoder, see `data.features`. None: they are
    # computed from the images.
    features: Float16[Array, "B T L S C"] | None = None


class Clip(NamedTuple):
    """Frames of one video without ground truth: the input of a system at test time.

    NumPy arrays until a jitted step takes them.
    """

    images: UInt8[Array | np.ndarray, "T H W 3"]
    frame_valid: Bool[Array | np.ndarray, "T"]
    size: Int32[Array | np.ndarray, "2"]  # height, width of the content, at top left
    # Index of the first frame in the video.
    start: Int32[Array | np.ndarray | np.int32, ""] = np.int32(0)
    last: Bool[Array | np.ndarray | np.bool_, ""] = np.bool_(True)  # no clip follows


class Predictions(NamedTuple):
    """Output of a system after a clip: the tracks so far, and the masks of its frames.

    Axes: S track slots, F frames, D masks per frame, K classes, h w cells of a mask.
    Masks are stored per frame, each with its track's slot, as most tracks of a long
    video are absent from most frames. A slot holds one track for all frames of a step.
    A track's score is the probability of its best class. `Window` tells which frames of
    the video the F frames are.
    """

    class_probs: Float32[
        Array | np.ndarray, "S K"
    ]  # class probabilities of the track so far; need not sum to 1
    track_ids: Int32[Array | np.ndarray, "S"]  # 1, 2, .. within one video; 0 = none
    valid: Bool[Array | np.ndarray, "S"]
    slots: Int32[Array | np.ndarray, "F D"]  # track slot of each mask; -1 = no mask
    mask_logits: Float32[Array | np.ndarray, "F D h w"]  # positive = inside
    # Region covered by each mask, x1 y1 x2 y2 in canvas pixels; an empty box means no
    # mask. None: every mask covers the whole canvas.
    mask_boxes: Float32[Array | np.ndarray, "F D 4"] | None = None
    # Objects so far that found no free track slot; reported to the user.
    lost: Int32[Array | np.ndarray | np.int32, ""] = np.int32(0)


class Window(NamedTuple):
    """Frames of a video that each step sees, and which of them become final.

    Row f of a clip's masks is video frame `clip.start - delay + f`; a clip of T frames
    has T + delay rows. Rows before the start of the next clip, minus the delay, are
    final; after the last clip, all rows inside the video are.
    """

    length: int | None  # frames of a clip; None: the whole video is one clip
    # Frames from one clip's start to the next. Equal to the length: clips do not
    # overlap and the last one is padded at its end. Smaller: clips overlap and the last
    # one is shifted back to end with the video.
    stride: int | None
    delay: int = 0  # frames by which masks lag behind their image
    buckets: tuple[int, ...] = ()  # lengths that whole videos are padded to
    multiple: int = 32  # pixels; frames are padded to multiples of this


class Render(NamedTuple):
    """Rule that turns the masks of a frame into pixels at the original size.

    independent: a pixel belongs to every mask that contains it. argmax: only to the
    mask with the largest logit. rank: only to the first mask that contains it, in mask
    order. A mask with less than the share `least_visible` of its pixels visible is
    dropped, and hides nothing.
    """

    overlap: Literal["independent", "argmax", "rank"] = "independent"
    least_visible: float = 0.0  # share of a mask's pixels; used by rank
    # Masks over the canvas are upsampled to it with `ops.bilinear.aligned_upsample`.
    aligned: bool = False


class Detections(NamedTuple):
    """Detections of each frame on its own, best score first.

    Axes: N slots, K classes, E and F embedding channels, h w cells of a mask. Padding
    is zero, with label K.
    """

    boxes: Float32[Array, "*lead N 4"]  # x1 y1 x2 y2 in canvas pixels
    scores: Float32[Array, "*lead N"]  # 0 = shown, but without a vote on its track
    labels: Int32[Array, "*lead N"]
    valid: Bool[Array, "*lead N"]
    # Appearance embeddings, compared by dot product. E = 0 without a track head.
    embeds: Float32[Array, "*lead N E"]
    # Unit-length classifier features, for trackers without training.
    descriptors: Float32[Array, "*lead N F"]
    mask_logits: Float32[Array, "*lead N h w"]  # positive = inside
    # Region covered by each mask, as `Predictions.mask_boxes`; None: the boxes.
    mask_boxes: Float32[Array, "*lead N 4"] | None = None

    @property
    def covered(self) -> Float32[Array | np.ndarray, "*lead N 4"]:
        """Region covered by each mask."""
        return self.boxes if self.mask_boxes is None else self.mask_boxes


class Appearance(NamedTuple):
    """Appearance features of objects, as in `Detections`."""

    embeds: Float32[Array, "*lead N E"]
    descriptors: Float32[Array, "*lead N F"]


class LossAux(NamedTuple):
    """Auxiliary outputs of a loss."""

    terms: dict[str, Float32[Array, ""]]  # weighted: they sum to the loss
    batch_stats: dict  # updated statistics of normalisation layers, {} if none
    # Logged beside the terms but not part of the loss, such as the number of objects
    # that did not fit into fixed-size arrays; {} if none.
    notes: dict[str, Float32[Array, ""]]

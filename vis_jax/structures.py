"""What passes between the data pipeline, the systems and the loops.

Axes: B clips, T frames, M true instances, H W pixels of the padded frame (the canvas),
h w pixels of a system's mask resolution.
"""

from typing import Literal, NamedTuple

import numpy as np

from vis_jax.typing import Array, Bool, Float32, Int32, UInt8


class Batch(NamedTuple):
    """Clips with their truth, as `data_pipeline.schema` describes them."""

    images: UInt8[Array, "B T H W 3"]
    frame_valid: Bool[Array, "B T"]
    sizes: Int32[Array, "B 2"]  # height, width of the content, at the top left
    masks: Bool[Array, "B M T H W"]
    boxes: Float32[Array, "B M T 4"]  # x1 y1 x2 y2 in canvas pixels; 0 if not present
    present: Bool[Array, "B M T"]  # the instance has at least one pixel in the frame
    labels: Int32[Array, "B M"]  # 0 .. K - 1
    track_ids: Int32[Array, "B M"]  # 1, 2, .. within the video; 0 = padding
    instance_valid: Bool[Array, "B M"]


class Clip(NamedTuple):
    """Frames of one video without truth; what a system sees at test time.

    NumPy arrays until a jitted step takes them.
    """

    images: UInt8[Array | np.ndarray, "T H W 3"]
    frame_valid: Bool[Array | np.ndarray, "T"]
    size: Int32[Array | np.ndarray, "2"]  # height, width of the content, at top left
    # Index of the first frame in the video.
    start: Int32[Array | np.ndarray | np.int32, ""] = np.int32(0)
    last: Bool[Array | np.ndarray | np.bool_, ""] = np.bool_(True)  # no clip follows


class Predictions(NamedTuple):
    """What a system says after a clip: the tracks so far, and the masks of its frames.

    Axes: S track slots, F frames, D masks of a frame, K classes, h w cells of a mask.
    Masks are kept by frame, each with the slot of its track: most tracks of a long
    video are not in a frame. A slot has one track for all frames of a step. The score
    of a track is the probability of its best class. Which frames of the video the F
    frames are, `Window` says.
    """

    class_probs: Float32[
        Array | np.ndarray, "S K"
    ]  # of the track up to now; need not sum to 1
    track_ids: Int32[Array | np.ndarray, "S"]  # 1, 2, .. within one video; 0 = none
    valid: Bool[Array | np.ndarray, "S"]
    slots: Int32[
        Array | np.ndarray, "F D"
    ]  # of the track that a mask is of; -1 = no mask
    mask_logits: Float32[Array | np.ndarray, "F D h w"]  # positive = inside
    # What the masks cover, x1 y1 x2 y2 in canvas pixels; an empty box: no mask. None:
    # every mask covers the whole canvas.
    mask_boxes: Float32[Array | np.ndarray, "F D 4"] | None = None
    # Objects that found no free track up to now; to be told to the user.
    lost: Int32[Array | np.ndarray | np.int32, ""] = np.int32(0)


class Window(NamedTuple):
    """Which frames of a video a step sees, and which of them are final then.

    Row f of the masks of a clip is the frame `clip.start - delay + f` of the video: a
    clip of T frames has T + delay rows. Rows are final up to the start of the next
    clip, less the delay; after the last clip, all rows inside the video are.
    """

    length: int | None  # frames of a clip; None: the whole video is one clip
    # Frames from the start of a clip to that of the next. As long as the clip: none
    # overlap, and the last one is padded at its end. Less: they overlap, and the last
    # one is shifted back to end with the video.
    stride: int | None
    delay: int = 0  # frames by which masks come later than their image
    buckets: tuple[int, ...] = ()  # lengths that whole videos are padded to


class Render(NamedTuple):
    """How the masks of a frame become pixels at the original size.

    independent: a pixel belongs to every mask that has it. argmax: only to the one of
    the largest logit. rank: only to the first mask that has it, in the order of the
    masks. A mask of which less than the share `least_visible` stays visible is dropped,
    and hides nothing.
    """

    overlap: Literal["independent", "argmax", "rank"] = "independent"
    least_visible: float = 0.0  # share of the pixels of a mask; read by rank
    # Masks that cover the canvas are enlarged to it as `ops.aligned_upsample` does it.
    aligned: bool = False


class Detections(NamedTuple):
    """What a detector found in frames, each by itself, best score first.

    Axes: N slots, K classes, E and F lengths of descriptions, h w cells of a mask.
    Padding has zeros, and the label K.
    """

    boxes: Float32[Array, "*lead N 4"]  # x1 y1 x2 y2 in canvas pixels
    scores: Float32[Array, "*lead N"]  # 0 = shown, but says nothing of the track
    labels: Int32[Array, "*lead N"]
    valid: Bool[Array, "*lead N"]
    # By which a track head compares objects: dot products. E = 0 without such a head.
    embeds: Float32[Array, "*lead N E"]
    # What the classifier sees last, of unit length; for trackers without training.
    looks: Float32[Array, "*lead N F"]
    mask_logits: Float32[Array, "*lead N h w"]  # positive = inside
    # What the masks cover, as `Predictions.mask_boxes`; None: the boxes.
    mask_boxes: Float32[Array, "*lead N 4"] | None = None

    @property
    def covered(self) -> Float32[Array | np.ndarray, "*lead N 4"]:
        """What the masks cover."""
        return self.boxes if self.mask_boxes is None else self.mask_boxes


class Appearance(NamedTuple):
    """Descriptions of objects, as in `Detections`."""

    embeds: Float32[Array, "*lead N E"]
    looks: Float32[Array, "*lead N F"]


class LossAux(NamedTuple):
    """What a loss reports beside its value."""

    terms: dict[str, Float32[Array, ""]]  # weighted: they sum to the loss
    batch_stats: dict  # updated statistics of normalisation layers, {} if none
    # Logged beside the terms and no part of the loss, such as how many objects of the
    # batch found no place in arrays of fixed size; {} if none.
    notes: dict[str, Float32[Array, ""]]

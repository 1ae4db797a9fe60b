"""Identities over the frames of a video, for any detector.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022, section 3.5, and its released code. Letters: D detections per
frame, K classes, N identities, S most identities in a video.
"""

from typing import Literal, NamedTuple, Protocol, cast, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.association import id_scores
from vis_jax.association.frame_memory import FrameMemory, Tokens
from vis_jax.association.id_scores import IdentityScoreSums, Over
from vis_jax.association.identity import (
    AssignedIds,
    Capacity,
    DisjointMasks,
    detection_map,
    issue_ids,
    truth_map,
    unique_ids,
    visible_masks,
)
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.id_objects import IdObjects, Rank
from vis_jax.ops.chunks import map_chunks
from vis_jax.settings import Count, Share, section
from vis_jax.structures import Clip, Predictions
from vis_jax.systems import system
from vis_jax.systems.iai_model import FrameObjects, FrameStages, Stages, remember
from vis_jax.typing import Array, Bool, Float32, Int32, UInt8


@section
class TestSettings(system.TestSettings):
    """`test`; the result does not depend on how frames are cut into clips."""

    mode: Literal["video", "clip"] = "clip"
    score: Share = 0.1  # minimum class probability of a detection ..
    id_score: Share = 0.1  # .. and of its identity
    nms: Share = 0.5  # IoU above which the better of two boxes suppresses
    objects: Count = 10  # most detections per frame
    # Score that orders boxes in NMS. code: class and half the identity in the first
    # frame, half the class and the identity later; average: their mean.
    rank: Rank = "code"
    # When all identities are assigned. paper: new objects are lost; code: they share
    # the last identity, which is not shown.
    capacity: Capacity = "paper"
    # Score of an identity: the mean over all frames, or over those with a detection.
    video_score: Over = "all_frames"
    least: Share = 0.05  # class scores of an identity up to this become 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tta:
            raise ValueError(f"tta: expected () for an online system, got {self.tta}")


class IdentityRules(NamedTuple):
    """Rules for assigning identities to objects and scores to identities.

    Attributes:
      ids: N; 0 without identities: the k-th kept detection of a frame is identity k.
      slots: S; N - 1 with identities, of which `code` never outputs the last.
      capacity, over, least: see `TestSettings`.
    """

    ids: int
    slots: int
    capacity: Capacity
    over: Over
    least: float

    @property
    def background(self) -> int:
        """Value of empty pixels in id maps; without identities objects are 0."""
        return self.ids or 1


class VideoIdentities(NamedTuple):
    """Identities of a video up to some frame."""

    issued: Int32[Array, ""]  # identities assigned so far
    tally: IdentityScoreSums
    lost: Int32[Array, ""]  # most objects of one frame that got no identity


class IdentityAssignment(NamedTuple):
    """Identities of the objects of one frame."""

    video: VideoIdentities  # after the frame
    slots: Int32[Array, "D"]  # slot of the identity; -1 = not shown
    painted: UInt8[Array, "H W"]  # the id map to remember
    new: Bool[Array, ""]  # whether an object is new


def rules_of(test: TestSettings, ids: int) -> IdentityRules:
    """Returns the rules for a config.

    Args:
      test: settings of the config.
      ids: N; 0 without identities.
    """
    slots = ids - 1 if ids else test.objects
    return IdentityRules(ids, slots, test.capacity, test.video_score, test.least)


def start_video(rules: IdentityRules, classes: int) -> VideoIdentities:
    """Returns the state before the first frame; `classes` is K."""
    zero = jnp.int32(0)
    return VideoIdentities(zero, id_scores.empty_tally(rules.slots, classes), zero)


def name_frame(
    rules: IdentityRules,
    video: VideoIdentities,
    objects: IdObjects,
    masks: Bool[Array, "D H W"],
    real: Bool[Array, ""],
) -> IdentityAssignment:
    """Assigns identities to the objects of the next frame.

    Args:
      rules: see the type.
      video: before the frame.
      objects: objects of the frame.
      masks: masks of the objects, over the canvas.
      real: False for padding, which leaves the video unchanged.
    """
    visible = visible_masks(masks, objects.valid)
    issued = _issue(rules, objects, visible.kept, video.issued)
    after = VideoIdentities(
        jnp.where(real, issued.issued, video.issued),
        id_scores.count(
            video.tally, issued.ids, issued.valid, objects.class_scores, real=real
        ),
        jnp.maximum(video.lost, jnp.where(real, issued.lost, 0)),
    )
    # As released: under the rule `code` the last identity is never below `issued`.
    shown = issued.valid & (issued.ids < issued.issued) & real
    slots = jnp.where(shown, issued.ids, -1)
    return IdentityAssignment(
        after, slots, _paint(rules, visible, issued), issued.new.any()
    )


class LinkedFrame(NamedTuple):
    """Objects found in a frame, and the state for the next."""

    memory: FrameMemory | None
    objects: IdObjects
    named: IdentityAssignment


@runtime_checkable
class Pixels(Protocol):
    """Turns mask logits into pixels."""

    def __call__(self, objects: IdObjects, /) -> Bool[Array, "D H W"]:
        """Returns the masks of the objects over the canvas."""
        ...


def follow_frame(
    model: nn.Module,
    rules: IdentityRules,
    variables: dict,
    memory: FrameMemory | None,
    video: VideoIdentities,
    features: FrameStages,
    *,
    size: Int32[Array, "2"],
    real: Bool[Array, ""],
    pixels: Pixels,
) -> LinkedFrame:
    """Processes the next frame; padding leaves memory and identities unchanged.

    Args:
      model: has the field `hab` and the method `see`.
      rules: see the type.
      variables: variables of the model.
      memory: memory of earlier frames; None without association.
      video: before the frame.
      features: features of the backbone.
      size: height and width of the content in pixels.
      real: False for padding.
      pixels: see the type.
    """
    stages = jax.tree.map(lambda x: x[None], features)
    first = video.tally.frames == 0
    seen = model.apply(variables, stages, memory, size, first, method="see")
    objects, tokens = cast(FrameObjects, seen)
    named = name_frame(rules, video, objects, pixels(objects), real)
    if memory is not None:
        memory = remember(
            model.hab,
            variables,
            memory,
            cast(Tokens, tokens),
            named.painted[None],
            new=named.new[None],
            real=real[None],
        )
    return LinkedFrame(memory, objects, named)


def stages_of(model: nn.Module, variables: dict, clip: Clip, *, chunk: int) -> Stages:
    """Returns features of the frames of a clip.

    Args:
      model: has the field `style` and the method `stages`.
      variables: variables of the model.
      clip: clip of a video.
      chunk: frames that the backbone processes at once.
    """

    def look(images: UInt8[Array, "T H W 3"]) -> Stages:
        pixels = normalize(images, jnp.asarray(clip.size), style=model.style)
        return cast(Stages, model.apply(variables, pixels, method="stages"))

    return map_chunks(look, jnp.asarray(clip.images), chunk)


def report(
    rules: IdentityRules,
    video: VideoIdentities,
    slots: Int32[Array, "T D"],
    mask_logits: Float32[Array, "T D h w"],
    mask_boxes: Float32[Array, "T D 4"] | None = None,
) -> Predictions:
    """Returns all identities so far, and the masks of some frames.

    Args:
      rules: see the type.
      video: after the frames.
      slots: identities of the detections of each frame; see `IdentityAssignment`.
      mask_logits, mask_boxes: see `Predictions`.
    """
    numbers = jnp.arange(rules.slots, dtype=jnp.int32)
    known = video.tally.detected > 0
    if rules.ids:
        known &= numbers < video.issued
    return Predictions(
        class_probs=id_scores.class_probs(
            video.tally, over=rules.over, least=rules.least
        ),
        track_ids=numbers + 1,
        valid=known,
        slots=slots,
        mask_logits=mask_logits,
        mask_boxes=mask_boxes,
        lost=video.lost,
    )


def _issue(
    rules: IdentityRules,
    objects: IdObjects,
    kept: Bool[Array, "D"],
    issued: Int32[Array, ""],
) -> AssignedIds:
    """Assigns identities to the kept detections of a frame; ranks if there are none."""
    if not rules.ids:
        ids = jnp.cumsum(kept, dtype=jnp.int32) - 1
        none = jnp.zeros_like(kept)
        return AssignedIds(ids, kept, none, jnp.int32(len(kept)), jnp.int32(0))
    columns = unique_ids(objects.id_scores, kept)
    return issue_ids(columns, kept, issued, count=rules.ids, capacity=rules.capacity)


def _paint(
    rules: IdentityRules, visible: DisjointMasks, issued: AssignedIds
) -> UInt8[Array, "H W"]:
    """Draws the id map to remember for a frame."""
    if rules.ids:
        return detection_map(
            visible.masks, issued.ids, issued.valid, background=rules.background
        )
    nobody = jnp.zeros_like(issued.ids)
    return truth_map(visible.masks, nobody, issued.valid, background=rules.background)

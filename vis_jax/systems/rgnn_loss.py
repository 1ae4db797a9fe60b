"""Training of RGNNVIS: the association is trained on clips; the detector is frozen.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 4. Letters: B clips, L frames, G ground-truth objects, N detections per
frame, M tracks.
"""

import functools
from typing import Annotated, NamedTuple, cast

import jax
import jax.numpy as jnp

from vis_jax.association.track_decisions import thresholds
from vis_jax.association.track_graph import FrameDecisions, GraphFrame, empty_memory
from vis_jax.association.track_truth import (
    Identities,
    class_targets,
    identities,
    known_objects,
    match_targets,
    object_slots,
    primary_objects,
    scored_tracks,
    start_targets,
)
from vis_jax.backbones.normalize import normalize
from vis_jax.losses.identity import match_loss as choice_loss
from vis_jax.losses.track_graph import (
    frame_weights,
    mask_truth,
    match_loss,
    score_loss,
    segmentation_loss,
    start_loss,
)
from vis_jax.settings import Count, Natural, OpenFraction, Range, Weight, section
from vis_jax.structures import Batch, LossAux
from vis_jax.systems.rgnn_model import (
    FrozenDetections,
    Model,
    call,
    frames_of,
    link_frames,
)
from vis_jax.typing import Array, Float32, Int32, PRNGKeyArray, UInt8

_Iou = Annotated[float, Range(least=0, below=1)]


@section
class LossSettings:
    """`loss`: the weight of each term, and the training targets."""

    match: Weight = 4.0  # continuation of tracks by detections
    start: Weight = 1.0  # track starts
    score: Weight = 1.0  # class of tracks
    segmentation: Weight = 1.0  # mask of tracks
    # Decision thresholds in training, as probabilities like those in `test`. With the
    # test thresholds no track would get a detection at first.
    match_threshold: OpenFraction = 0.1192
    start_threshold: OpenFraction = 0.1269
    iou: _Iou = 0.5  # above which a detection is matched to an object
    # The five switches of the released code. Duplicate tracks of an object have its
    # class, or else background.
    duplicates: bool = False
    # Objects absent from the first frame have their class, too; False: background, due
    # to a bug in how the released code cuts clips.
    late_classes: bool = True
    birth_frame: bool = True  # include a track's first frame in the class loss
    normalised: bool = True  # frame weights of the class loss sum to 1
    # In all frames, train the masks of the tracks known before the last frame.
    whole_clip: bool = False
    stride: Count = 1  # pixel stride in the mask loss; saves sorting
    bptt: Natural = 0  # frames after which the gradient is cut; 0 = never


class Sums(NamedTuple):
    """Summed losses of one clip."""

    match: Float32[Array, ""]
    start: Float32[Array, ""]
    score: Float32[Array, ""]
    segmentation: Float32[Array, ""]
    lost: Int32[Array, ""]  # new objects without a free slot
    owned: Int32[Array, ""]  # objects that have a track


def loss(
    model: Model,
    settings: LossSettings,
    variables: dict,
    batch: Batch,
    rng: PRNGKeyArray,
) -> tuple[Float32[Array, ""], LossAux]:
    """Returns the loss of a batch; no gradient flows into the detector.

    Deviation: the released code skips batches without any object.
    """
    sight = see(model, variables, batch, rng)
    of_clip = functools.partial(clip_sums, model, settings, variables)
    sums = jax.vmap(of_clip)(sight, batch)
    frames = jnp.maximum(batch.frame_valid.sum(), 1).astype(jnp.float32)
    terms = {
        "match": settings.match * sums.match.sum() / frames,
        "start": settings.start * sums.start.sum() / frames,
        "score": settings.score * sums.score.mean(),
        "segmentation": settings.segmentation * sums.segmentation.sum() / frames,
    }
    notes = {
        "newcomers_left_out": sums.lost.sum().astype(jnp.float32),
        "objects_with_track": sums.owned.sum().astype(jnp.float32),
    }
    return sum(terms.values(), start=jnp.float32(0.0)), LossAux(terms, {}, notes)


def see(
    model: Model, variables: dict, batch: Batch, rng: PRNGKeyArray
) -> FrozenDetections:
    """Runs the detector on the clips, [B L ..].

    Frames are processed one at a time, for all clips at once: this bounds memory and
    keeps each clip on its device.
    """
    pixels = functools.partial(normalize, style=model.style)

    def one(
        frame: tuple[UInt8[Array, "B H W 3"], PRNGKeyArray],
    ) -> FrozenDetections:
        images, key = frame
        images = jax.vmap(pixels)(images[:, None], batch.sizes)[:, 0]
        found = model.apply(
            variables,
            images,
            batch.sizes,
            True,
            method="see",
            rngs={"dropout": key},
        )
        return cast(FrozenDetections, found)

    images = jnp.swapaxes(batch.images, 0, 1)
    found = jax.lax.map(one, (images, jax.random.split(rng, len(images))))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), found)


def clip_sums(
    model: Model,
    settings: LossSettings,
    variables: dict,
    sight: FrozenDetections,
    clip: Batch,
) -> Sums:
    """Computes all terms of one clip, whose arrays have no axis B."""
    described = call(model, variables, "describe", sight.pooled, sight.valid)
    frames = frames_of(sight, described, clip.frame_valid)
    memory, linked = link_frames(
        model,
        variables,
        empty_memory(model.graph.settings, model.graph.width),
        frames,
        canvas=(clip.images.shape[1], clip.images.shape[2]),
        thresholds=thresholds(settings.match_threshold, settings.start_threshold),
        cues=False,
        bptt=settings.bptt,
    )
    objects = primary_objects(
        frames.boxes,
        frames.valid,
        jnp.swapaxes(clip.boxes, 0, 1),
        present=(clip.present & clip.instance_valid[:, None]).T,
        threshold=settings.iou,
    )
    tracks = identities(linked.born, linked.chosen, objects)
    match, start = _decision_sums(model, linked, frames, tracks, objects)
    known = known_objects(clip.present, late=settings.late_classes)
    score = score_loss(
        linked.class_logits,
        class_targets(tracks, clip.labels, known=known, duplicates=settings.duplicates),
        scored=scored_tracks(linked.status, tracks, birth_frame=settings.birth_frame),
        weights=frame_weights(clip.frame_valid, normalised=settings.normalised),
    )
    masks = _segmentation_sum(model, settings, variables, (sight, linked, tracks), clip)
    return Sums(match, start, score, masks, memory.lost, (tracks.owned > 0).sum())


def _decision_sums(
    model: Model,
    linked: FrameDecisions,
    frames: GraphFrame,
    tracks: Identities,
    objects: Int32[Array, "L N"],
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Returns the match and start losses, summed over the frames of a clip."""
    targets, real = match_targets(tracks, objects), frames.real
    if model.graph.settings.decide == "heuristic":
        # As in MaskTrack R-CNN: one softmax for each detection of an object.
        logits = jnp.concatenate(
            [linked.start_logits[:, None], linked.match_logits], axis=1
        )
        column = jnp.where(targets.any(axis=1), targets.argmax(axis=1) + 1, 0)
        positive = (objects > 0) & real[:, None]
        mean = choice_loss(jnp.swapaxes(logits, 1, 2), column, positive)
        return mean * len(real), jnp.float32(0.0)
    match = match_loss(
        linked.match_logits, targets, pairs=linked.pairs, frame_valid=real
    )
    start = start_loss(
        linked.start_logits,
        start_targets(tracks, objects),
        valid=frames.valid,
        frame_valid=real,
    )
    return match, start


def _segmentation_sum(
    model: Model,
    settings: LossSettings,
    variables: dict,
    found: tuple[FrozenDetections, FrameDecisions, Identities],
    clip: Batch,
) -> Float32[Array, ""]:
    """Returns the segmentation loss, summed over the frames of a clip."""
    sight, linked, tracks = found

    def draw(frame: tuple) -> Float32[Array, "M h w"]:
        return call(model, variables, "draw", *frame)

    parts = (sight.mask_logits, sight.inside, linked)
    masks = jax.lax.map(jax.checkpoint(draw), parts)
    real = clip.instance_valid[:, None, None, None]
    truth = mask_truth(
        clip.masks & real, clip.frame_valid, clip.sizes, stride=settings.stride
    )
    slots = object_slots(
        tracks,
        clip.frame_valid,
        objects=len(clip.labels),
        whole_clip=settings.whole_clip,
    )
    return segmentation_loss(
        masks,
        truth,
        slots,
        canvas=(clip.images.shape[1], clip.images.shape[2]),
        stride=settings.stride,
        background=model.background,
    ).sum()

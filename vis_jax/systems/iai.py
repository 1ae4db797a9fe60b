"""IAI on CondInst: the network itself predicts the identity of every object.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022, and its released code. Each frame attends to memories of
earlier frames, which store the identities of their objects; each detection is given one
of these identities or a new one. Letters: T frames, D detections per frame, K classes.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.association.frame_memory import FrameMemory
from vis_jax.detectors.condinst import shown_masks
from vis_jax.detectors.condinst_ids import IdRule, pixel_masks
from vis_jax.detectors.id_objects import IdObjects
from vis_jax.settings import Count, section
from vis_jax.structures import Batch, Clip, Detections, Predictions, Render
from vis_jax.systems import iai_video
from vis_jax.systems.detect_then_track import Linker, make_linker
from vis_jax.systems.iai_loss import LossSettings, loss
from vis_jax.systems.iai_model import (
    FrameStages,
    Model,
    ModelSettings,
    build_model,
    start_memory,
)
from vis_jax.systems.iai_video import (
    IdentityRules,
    LinkedFrame,
    VideoIdentities,
    follow_frame,
    report,
    rules_of,
    stages_of,
    start_video,
)
from vis_jax.systems.system import RETRAIN, Dtype, System, window_of
from vis_jax.systems.tracked_detector import (
    DetectionShapes,
    empty_detections,
    on_canvas,
)
from vis_jax.trackers import iou as iou_tracker
from vis_jax.typing import Array, Bool, Int32


@section
class TestSettings(iai_video.TestSettings):
    """`test`; the result does not depend on how frames are cut into clips."""

    # Most locations per level that enter NMS.
    candidates: Count = 200
    # Linking without identities. rank: the k-th best detection of each frame, without
    # those hidden by others, is identity k; iou: by box overlap, with up to `tracks`
    # identities.
    link: Literal["rank", "iou"] = "rank"
    tracks: Count = 360
    iou: iou_tracker.Settings = iou_tracker.Settings()


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


class State(NamedTuple):
    """State of a video after some frame."""

    memory: FrameMemory | None
    video: VideoIdentities
    linked: Any  # state of the tracker `iou`; None for any other link


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: settings are inconsistent.
    """
    model, ids = build_network(settings), settings.model.ids

    def init(rng, batch: Batch):
        images = jnp.zeros((1, *batch.images.shape[2:]), jnp.float32)
        canvas = (images.shape[1], images.shape[2])
        memory = start_memory(model.hab, 1, canvas, slots=1)
        return model.init(rng, images, memory, method="look")

    return System(
        init,
        functools.partial(loss, model, settings.loss, ids),
        functools.partial(start, model, settings),
        functools.partial(_step, model, settings),
        window_of(settings.test),
        # Each pixel belongs to the best mask that contains it.
        Render("rank", aligned=True),
        f"model.ids.count{RETRAIN}" if ids.on else "test.tracks",
    )


def build_network(settings: Settings) -> Model:
    """Builds the network.

    Raises:
      ValueError: settings are inconsistent.
    """
    test, ids = settings.test, settings.model.ids
    rule = IdRule(
        test.score, test.id_score, test.nms, test.candidates, test.objects, test.rank,
        ids.loss,
    )  # fmt: skip
    return build_model(settings.model, rule, jnp.dtype(settings.compute_dtype))


def video_rules(settings: Settings) -> IdentityRules:
    """Returns the rules that assign identities to objects."""
    ids = settings.model.ids
    return rules_of(settings.test, ids.count if ids.on else 0)


def start(model: Model, settings: Settings, clip: Clip) -> State:
    """Returns the state before the first frame of a video."""
    linked = None
    if _by_iou(settings):
        shapes = DetectionShapes(
            settings.test.objects, settings.model.num_classes, 0, 0, (1, 1), covers=True
        )
        none = empty_detections(shapes, len(clip.images))
        linked = _linker(settings).start(clip, none)
    canvas = (clip.images.shape[1], clip.images.shape[2])
    return State(
        start_memory(model.hab, 1, canvas, slots=settings.model.hab.slots),
        start_video(video_rules(settings), settings.model.num_classes),
        linked,
    )


def _step(
    model: Model, settings: Settings, variables: dict, state: State, clip: Clip
) -> tuple[State, Predictions]:
    """Processes the next frames of a video."""
    size, real = jnp.asarray(clip.size), jnp.asarray(clip.frame_valid)

    def follow(
        state: State, now: tuple[FrameStages, Array]
    ) -> tuple[State, tuple[IdObjects, Array]]:
        features, real = now
        state, found = see_frame(
            model, settings, variables, state, features, size, real
        )
        return state, (found.objects, found.named.slots)

    features = stages_of(model, variables, clip, chunk=settings.test.chunk)
    state, (objects, slots) = jax.lax.scan(follow, state, (features, real))
    if _by_iou(settings):
        found = _detections(objects, slots >= 0, clip)
        linked, seen = _linker(settings).link(variables, state.linked, clip, found)
        return state._replace(linked=linked), seen
    # Upsampled as probabilities; subtracting 0.5 puts the threshold at zero.
    masks = jax.nn.sigmoid(objects.mask_logits) - 0.5
    return state, report(video_rules(settings), state.video, slots, masks)


def see_frame(
    model: Model,
    settings: Settings,
    variables: dict,
    state: State,
    features: FrameStages,
    size: Int32[Array, "2"],
    real: Bool[Array, ""],
) -> tuple[State, LinkedFrame]:
    """Processes the next frame of a video; padding leaves the state unchanged.

    Args:
      model, settings: the system's.
      variables: variables of the model.
      state: before the frame.
      features: features of the backbone.
      size: height and width of the content in pixels.
      real: False for padding.
    """
    found = follow_frame(
        model,
        video_rules(settings),
        variables,
        state.memory,
        state.video,
        features,
        size=size,
        real=real,
        pixels=lambda objects: pixel_masks(objects.mask_logits),
    )
    return State(found.memory, found.named.video, state.linked), found


def _by_iou(settings: Settings) -> bool:
    return not settings.model.ids.on and settings.test.link == "iou"


def _linker(settings: Settings) -> Linker:
    """Returns the tracker that links objects when identities are off."""
    test = settings.test
    return make_linker(
        iou_tracker.build(test.iou, test.tracks),
        slots=test.tracks,
        classes=settings.model.num_classes,
    )


def _detections(
    objects: IdObjects, shown: Bool[Array, "T D"], clip: Clip
) -> Detections:
    """Returns the detections to link: those not hidden by others."""
    scores = objects.class_scores
    labels = jnp.where(shown, scores.argmax(axis=-1), scores.shape[-1])
    none = jnp.zeros((*shown.shape, 0), jnp.float32)
    return on_canvas(
        Detections(
            boxes=objects.boxes,
            scores=jnp.where(shown, scores.max(axis=-1), 0.0),
            labels=labels.astype(jnp.int32),
            valid=shown,
            embeds=none,
            descriptors=none,
            mask_logits=jax.vmap(shown_masks)(objects.mask_logits),
        ),
        (clip.images.shape[1], clip.images.shape[2]),
    )

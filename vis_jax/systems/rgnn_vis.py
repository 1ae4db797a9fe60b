"""RGNNVIS: a recurrent graph network that links YOLACT detections.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, and the released code of its first version, Johnander et al., GCPR 2021. The
detector is pretrained (`systems.yolact`) and frozen here. The network's own decisions
drive tracks in training, too.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.association import track_scores
from vis_jax.association.track_decisions import ACTIVE, FREE, thresholds
from vis_jax.association.track_graph import Memory, empty_memory
from vis_jax.association.track_scores import (
    Scoring,
    TrackScoreSums,
    class_probs,
    empty_tally,
)
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.yolact import YolactRule
from vis_jax.ops.chunks import map_chunks
from vis_jax.settings import Count, OpenFraction, Share, section
from vis_jax.structures import Clip, Predictions, Render
from vis_jax.systems import system
from vis_jax.systems.rgnn_loss import LossSettings, loss
from vis_jax.systems.rgnn_model import (
    FrozenDetections,
    Model,
    ModelSettings,
    build_model,
    call,
    frames_of,
    link_frames,
)
from vis_jax.systems.system import Dtype, System, check_classes, window_of
from vis_jax.systems.tracked_detector import make_init
from vis_jax.typing import Array, UInt8

_CANDIDATES = 200  # priors that take part in NMS


@section
class TestSettings(system.TestSettings):
    """`test`; the result does not depend on how frames are cut into clips."""

    mode: Literal["video", "clip"] = "clip"
    score: Share = 0.03  # minimum score of a detection
    nms: Share = 0.7  # IoU above which the better of two boxes suppresses
    objects: Count = 16  # most detections per frame, also in training
    match: OpenFraction = 0.3133  # probability above which a track matches a detection
    start: OpenFraction = 0.3133  # probability above which a detection starts a track
    # Source of a track's class and score. track: the track itself; heuristic: majority
    # class of its detections and their mean score; averaged: their mean logits.
    scoring: Scoring = "track"
    # For the scoring track: class of the last frame or of most frames, and score of the
    # last frame or mean over the frames.
    video_class: Literal["last", "majority"] = "last"
    video_score: Literal["last", "mean"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tta:
            raise ValueError(f"tta: expected () for tracks, got {self.tta}")


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the detector; the rest is in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


class State(NamedTuple):
    """State of a video after some frame."""

    memory: Memory
    tally: TrackScoreSums


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: settings are inconsistent.
    """
    test, model_settings = settings.test, settings.model
    _check(model_settings, test)
    rule = YolactRule(
        test.score,
        test.nms,
        _CANDIDATES,
        test.objects,
        across_classes=True,
        clipped=True,
    )
    model = build_model(model_settings, rule, jnp.dtype(settings.compute_dtype))
    tracks, classes = model_settings.graph.tracks, model_settings.num_classes + 1

    def start(clip: Clip) -> State:
        del clip
        return State(
            empty_memory(model_settings.graph, model_settings.appearance.width),
            empty_tally(tracks, classes),
        )

    return System(
        make_init(model),
        functools.partial(loss, model, settings.loss),
        start,
        functools.partial(_step, model, settings),
        window_of(test),
        Render("argmax"),
        limit="model.graph.tracks",
    )


def _check(model: ModelSettings, test: TestSettings) -> None:
    """Raises ValueError if classes are unknown or there are too few candidates."""
    check_classes(model.num_classes)
    if test.objects > _CANDIDATES:
        raise ValueError(
            f"test.objects: expected at most {_CANDIDATES}, the number of NMS"
            f" candidates, got {test.objects}"
        )


def _step(
    model: Model, settings: Settings, variables: dict, state: State, clip: Clip
) -> tuple[State, Predictions]:
    """Processes the next frames of a video."""
    test = settings.test
    size = jnp.asarray(clip.size)
    images, real = jnp.asarray(clip.images), jnp.asarray(clip.frame_valid)

    def see(images: UInt8[Array, "T H W 3"]) -> FrozenDetections:
        pixels = normalize(images, size, style=model.style)
        sizes = jnp.broadcast_to(size[None], (len(images), 2))
        return call(model, variables, "see", pixels, sizes)

    sight = map_chunks(see, images, test.chunk)
    described = call(model, variables, "describe", sight.pooled, sight.valid)
    frames = frames_of(sight, described, real)
    memory, linked = link_frames(
        model,
        variables,
        state.memory,
        frames,
        canvas=(images.shape[1], images.shape[2]),
        thresholds=thresholds(test.match, test.start),
        cues=True,
    )

    def draw(frame: tuple) -> Array:
        return call(model, variables, "draw", *frame)

    masks = jax.lax.map(draw, (sight.mask_logits, sight.inside, linked))
    tally = track_scores.count(state.tally, frames, linked)
    rule = track_scores.TrackScoreRule(
        test.scoring, test.video_class == "majority", test.video_score == "mean"
    )
    last = call(model, variables, "classify", memory.hidden)
    shown = (linked.status == ACTIVE) & real[:, None]
    slots = jnp.arange(shown.shape[1], dtype=jnp.int32)
    return State(memory, tally), Predictions(
        class_probs=class_probs(tally, last, rule),
        track_ids=slots + 1,
        valid=memory.status != FREE,
        slots=jnp.where(shown, slots[None], -1),
        mask_logits=masks - model.background,
        lost=memory.lost,
    )

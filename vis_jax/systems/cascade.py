"""Hybrid Task Cascade on videos: per-frame detection, linked by a tracker.

Chen et al., "Hybrid task cascade for instance segmentation", CVPR 2019. With the track
head of MaskTrack R-CNN, trained on pairs of frames, it is the "MaskTrack R-CNN*" of
Bertasius and Torresani, "Classifying, segmenting, and tracking object instances in
video with mask propagation", CVPR 2020, tables 2 and 3. Letters: B clips, R regions, E
embedding channels.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from vis_jax.association.track_head import OptionalSettings as TrackHeadSettings
from vis_jax.association.track_head import TrackHead
from vis_jax.detectors import cascade_settings
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.cascade import Cascade, cascade_parts
from vis_jax.detectors.cascade_losses import train_rules
from vis_jax.detectors.frame_pair import draw_pair
from vis_jax.settings import OneOf, section
from vis_jax.structures import Batch, LossAux
from vis_jax.systems import detect_then_track
from vis_jax.systems.cascade_loss import LossSettings, check_settings, pair_losses
from vis_jax.systems.detect_then_track import Detector
from vis_jax.systems.system import Dtype, System, weighted
from vis_jax.systems.tracked_detector import make_system, region_detector
from vis_jax.trackers import TRACKERS
from vis_jax.typing import Array, Float32, PRNGKeyArray


@section
class ModelSettings(cascade_settings.Settings):
    """`model`."""

    track_head: TrackHeadSettings = TrackHeadSettings()


@section
class TestSettings(detect_then_track.TestSettings):
    """`test`."""

    tracker: Annotated[str, OneOf(TRACKERS)] = "iou"  # links the detections


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: settings are inconsistent.
    """
    model = build_model(settings)
    rules, least = train_rules(settings.model), settings.model.track_head.positive

    def loss(
        variables: dict, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float32[Array, ""], LossAux]:
        pair_rng, rng = jax.random.split(rng)
        pair = draw_pair(pair_rng, batch, style=model.style)
        aux = pair_losses(
            rng,
            model,
            variables,
            pair,
            batch.sizes,
            rules=rules,
            least=least,
            both=False,
        ).aux
        return weighted(aux, settings.loss)

    detector = region_detector(model, settings)
    return make_system(detector, loss, settings.test, settings.model.num_classes)


def build_detector(settings: Settings) -> Detector:
    """Builds the detector without a tracker."""
    return region_detector(build_model(settings), settings)


def build_model(settings: Settings) -> Cascade:
    """Builds the network.

    Raises:
      ValueError: settings are inconsistent.
    """
    model, test = settings.model, settings.test
    check_settings(model, settings.loss, test.objects)
    dtype = jnp.dtype(settings.compute_dtype)
    width = model.track_head.width
    return Cascade(
        **cascade_parts(
            model,
            DetectRule(test.score, test.nms, 0.0, test.objects),
            dtype,
            TrackHead(width, dtype) if width else None,
        )
    )

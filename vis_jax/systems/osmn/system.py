"""OSMN: a one-shot segmentation network, trained beside a frozen detector.

Yang et al., "Efficient Video Object Segmentation via Network Modulation", CVPR 2018, as
a baseline of Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019: its prediction of
each track's position links the detections (`test.tracker` "osmn"), or its masks are the
output ("osmn_masks"). The detector's variables are part of the system's, so that one
checkpoint serves both; only those under `osmn` are trained.
"""

from collections.abc import Callable, Mapping
from typing import Annotated

import jax
import jax.numpy as jnp

from vis_jax.association.track_head import Settings as TrackHeadSettings
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors import mask_rcnn
from vis_jax.settings import Count, OneOf, section
from vis_jax.structures import Batch
from vis_jax.systems import detect_then_track
from vis_jax.systems.detect_then_track import Detector
from vis_jax.systems.osmn import mask_tracker, tracker
from vis_jax.systems.osmn.loss import OsmnTrainRule, osmn_loss
from vis_jax.systems.osmn.mask_tracker import Settings as MasksSettings
from vis_jax.systems.osmn.network import OSMN
from vis_jax.systems.osmn.network import Settings as OsmnSettings
from vis_jax.systems.osmn.one_shot import OneShotNetwork
from vis_jax.systems.osmn.tracker import Settings as LinkSettings
from vis_jax.systems.system import Dtype, System
from vis_jax.systems.tracked_detector import make_system
from vis_jax.trackers import TRACKERS, Build
from vis_jax.trackers import Settings as TrackerSettings
from vis_jax.trackers.tracker import Tracker

_NAMES = (*TRACKERS, "osmn", "osmn_masks")


@section
class ModelSettings(mask_rcnn.Settings):
    """`model`: MaskTrack R-CNN as the detector, and the network."""

    track_head: TrackHeadSettings = TrackHeadSettings()
    osmn: OsmnSettings = OsmnSettings()


@section
class LossSettings:
    """`loss`."""

    objects: Count = 4  # most objects per clip, segmented in one frame of it
    # Batch norm uses and updates batch statistics; otherwise it uses the running ones
    # and keeps them, as in the authors' second stage.
    train_norm: bool = True


@section
class AllTrackerSettings(TrackerSettings):
    """`test.trackers`, including those that use the network."""

    osmn: LinkSettings = LinkSettings()
    osmn_masks: MasksSettings = MasksSettings()


@section
class TestSettings(detect_then_track.TestSettings):
    """`test`."""

    tracker: Annotated[str, OneOf(_NAMES)] = "osmn"  # links the detections
    trackers: AllTrackerSettings = AllTrackerSettings()


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


def build(settings: Settings, detector: Detector) -> System:
    """Builds the system.

    Args:
      settings: settings of the run.
      detector: frozen; finds the objects.

    Raises:
      ValueError: settings are inconsistent.
    """
    model = build_model(settings)
    side = settings.model.osmn.guide_side
    rule = OsmnTrainRule(settings.loss.objects, side, settings.loss.train_norm)

    def init(rng, batch: Batch):
        detector_rng, rng = jax.random.split(rng)
        canvas = batch.images.shape[2:4]
        own = model.init(
            rng,
            jnp.zeros((1, side, side, 3), jnp.float32),
            jnp.zeros((1, *canvas, 3), jnp.float32),
            jnp.zeros((1, *canvas), jnp.float32),
            valid=jnp.ones((1,), bool),
            train=False,
            train_norm=False,
        )
        variables = dict(detector.init(detector_rng, batch))
        for name, tree in own.items():
            variables[name] = {**variables.get(name, {}), "osmn": tree}
        return variables

    def loss(variables, batch: Batch, rng):
        value, aux = osmn_loss(model, _own(variables), batch, rng, rule=rule)
        # A detector's batch norm statistics are not updated.
        stats = {**variables["batch_stats"], "osmn": aux.batch_stats}
        return value, aux._replace(batch_stats=stats)

    return make_system(
        detector,
        loss,
        settings.test,
        settings.model.num_classes,
        trackers=trackers(settings),
        init=init,
    )


def build_model(settings: Settings) -> OSMN:
    """Builds the network."""
    fields = dict(vars(settings.model.osmn))
    del fields["guide_side"]
    return OSMN(**fields, dtype=jnp.dtype(settings.compute_dtype))


def trackers(settings: Settings) -> Mapping[str, Build]:
    """Returns all trackers, including those that use the network."""
    network = _network(build_model(settings), settings.model.osmn.guide_side)

    def link(values: LinkSettings, slots: int) -> Tracker:
        return tracker.build(values, slots, network)

    def propagate(values: MasksSettings, slots: int) -> Tracker:
        return mask_tracker.build(values, slots, network)

    return {**TRACKERS, "osmn": link, "osmn_masks": propagate}


def _own(variables: dict) -> dict:
    """Returns the network's variables from those of the system."""
    return {name: variables[name]["osmn"] for name in ("params", "batch_stats")}


def _network(model: OSMN, guide_side: int) -> OneShotNetwork:
    def apply(method: Callable) -> Callable:
        def of(variables, *inputs):
            return model.apply(_own(variables), *inputs, method=method)

        return of

    def prepare(images, size):
        return normalize(images, size, style=model.style)

    return OneShotNetwork(
        prepare=prepare,
        modulate=apply(OSMN.modulate),
        features=apply(OSMN.features),
        segment=apply(OSMN.segment),
        guide_side=guide_side,
        channels=sum(model.channels),
    )

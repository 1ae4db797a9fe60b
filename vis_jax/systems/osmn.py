"""OSMN: a network that finds an object again, trained beside a detector that stays.

Yang et al., "Efficient Video Object Segmentation via Network Modulation", CVPR 2018, as
a baseline of Yang, Fan, Xu, "Video Instance Segmentation", ICCV 2019: what it says of
the place of every track links the detections (`test.tracker` "osmn"), or its masks are
the result ("osmn_masks"). The detector's variables are part of the system's, so that
one checkpoint serves both; only those under `osmn` are trained.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vis_jax.association.modulation import OSMN
from vis_jax.association.modulation_loss import Rule, osmn_loss
from vis_jax.backbones.normalize import normalize
from vis_jax.backbones.vgg import DEPTHS, STRIDE
from vis_jax.structures import Batch, LossAux
from vis_jax.systems.detect_then_track import (
    Detector,
    check_test,
    start_and_step,
)
from vis_jax.systems.system import System
from vis_jax.trackers import TRACKERS, build_tracker, osmn, osmn_masks
from vis_jax.trackers.one_shot import Network
from vis_jax.trackers.settings import read_settings
from vis_jax.trackers.tracker import Tracker


def build(config: ConfigDict, detector: Detector) -> System:
    """The system of a config; see `configs/osmn_r50.py` for its fields.

    Args:
      config: of the run.
      detector: finds the objects; its variables are not trained.

    Raises:
      ValueError: a setting cannot be.
    """
    _check(config)
    model = build_model(config)
    side = config.model.osmn.guide_side
    rule = Rule(config.loss.objects, side, config.loss.train_norm)
    tracker = build_tracker(config.test, trackers(config))
    check_test(config.test, tracker)

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
        found = osmn_loss(model, _own(variables), batch, rng, rule=rule)
        return found.value, LossAux({"osmn": found.value}, {"osmn": found.batch_stats})

    start, step = start_and_step(
        detector,
        tracker,
        slots=config.test.tracks,
        classes=config.model.num_classes,
        chunk=config.test.chunk,
    )
    return System(init, loss, start, step)


def build_model(config: ConfigDict) -> OSMN:
    """The network of a config."""
    settings = dict(config.model.osmn)
    del settings["guide_side"]
    return OSMN(**settings, dtype=jnp.dtype(config.compute_dtype))


def trackers(config: ConfigDict) -> dict[str, Callable[[Mapping, int], Tracker]]:
    """All trackers, those among them that ask the network of a config."""
    network = _network(build_model(config), config.model.osmn.guide_side)

    def link(values: Mapping | ConfigDict, slots: int) -> Tracker:
        settings = read_settings("test.trackers.osmn", osmn.Settings, values)
        return osmn.build(settings, slots, network)

    def propagate(values: Mapping | ConfigDict, slots: int) -> Tracker:
        where = "test.trackers.osmn_masks"
        settings = read_settings(where, osmn_masks.Settings, values)
        return osmn_masks.build(settings, slots, network)

    return {**TRACKERS, "osmn": link, "osmn_masks": propagate}


def _check(config: ConfigDict) -> None:
    """Raises ValueError naming the first field that cannot be."""
    model = config.model.osmn
    for name in ("widths", "depths"):
        if len(model[name]) != len(DEPTHS):
            raise ValueError(
                f"model.osmn.{name}: expected {len(DEPTHS)} numbers, got {model[name]}"
            )
    if model.guide_side < STRIDE or model.guide_side % STRIDE:
        raise ValueError(
            f"model.osmn.guide_side: expected a multiple of {STRIDE} pixels, got"
            f" {model.guide_side}"
        )
    if config.loss.objects < 1:
        raise ValueError(
            f"loss.objects: expected at least 1, got {config.loss.objects}"
        )


def _own(variables: dict) -> dict:
    """The variables of the network among those of the system."""
    return {name: variables[name]["osmn"] for name in ("params", "batch_stats")}


def _network(model: OSMN, guide_side: int) -> Network:
    def apply(method: Callable) -> Callable:
        def of(variables, *inputs):
            return model.apply(_own(variables), *inputs, method=method)

        return of

    def prepare(images, size):
        return normalize(images, size, style=model.style)

    return Network(
        prepare=prepare,
        modulate=apply(OSMN.modulate),
        features=apply(OSMN.features),
        segment=apply(OSMN.segment),
        guide_side=guide_side,
        channels=sum(model.channels),
    )

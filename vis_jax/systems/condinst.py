"""CondInst on videos: per-frame detection, linked by a tracker.

Tian et al., "Conditional Convolutions for Instance Segmentation", ECCV 2020, with the
training targets and the NMS of the image model of IAI, Zhu et al., "Instance as
identity: a generic online paradigm for video instance segmentation", ECCV 2022. It may
have a track head, as in table 6 of IAI; otherwise trackers get no embeddings. Letters:
B clips, T frames, I = B T images, N objects per frame, P locations, E embedding
channels.
"""

import functools
from typing import Annotated, Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors import condinst_settings
from vis_jax.detectors.condinst import (
    CondInstOutput,
    LocationRule,
    build_modules,
    find,
    mask_logits,
    shown_masks,
)
from vis_jax.detectors.condinst_losses import image_losses, targets_of
from vis_jax.detectors.condinst_settings import pixel_style
from vis_jax.detectors.condinst_track import (
    TrackMap,
    TrackSettings,
    place_loss,
    place_of,
)
from vis_jax.detectors.fcos import FINEST, STRIDES, Levels, Places, cells_of, places_of
from vis_jax.detectors.frame_pair import draw_roles
from vis_jax.settings import Count, OneOf, Weight, section
from vis_jax.structures import Batch, Detections, LossAux
from vis_jax.systems import detect_then_track
from vis_jax.systems.detect_then_track import Appearance, Detector
from vis_jax.systems.system import Dtype, System, check_classes
from vis_jax.systems.tracked_detector import (
    check_trained,
    dense_detector,
    descriptors_in,
    make_system,
    objects_of,
    on_canvas,
)
from vis_jax.trackers import TRACKERS
from vis_jax.typing import Array, Bool, Float32, Int32, PRNGKeyArray


@section
class ModelSettings(condinst_settings.ModelSettings):
    """`model`."""

    track_head: TrackSettings = TrackSettings()


@section
class LossSettings(condinst_settings.LossSettings):
    """`loss`."""

    # Identity of locations across frames, if there is a head.
    track: Weight = 1.0
    # Train the detector. False: it runs as at test time, and only the track head is
    # trained; the detector's rate must then be 0, as weight decay needs no gradient.
    detector: bool = True


class PyramidOutput(NamedTuple):
    """Output of the network for images."""

    levels: Levels
    out: CondInstOutput


@section
class TestSettings(detect_then_track.TestSettings):
    """`test`; NMS is class-agnostic."""

    tracker: Annotated[str, OneOf(TRACKERS)] = "iou"  # links the detections
    # Most locations per level that enter NMS.
    candidates: Count = 200


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()


class Model(nn.Module):
    """Backbone, detector and track head.

    Attributes:
      track_head: None for no embeddings.
      ranges: see `TargetRule`.
      rule: turns locations into objects.
      style: pixel normalisation, see `normalize`.
    """

    backbone: nn.Module
    detector: nn.Module
    track_head: nn.Module | None
    ranges: tuple[float, ...]
    rule: LocationRule
    style: str

    def features(
        self,
        images: Float32[Array, "I H W 3"],
        train: bool = False,
        valid: Bool[Array, "I"] | None = None,
    ) -> Levels:
        """Returns the pyramid of normalised images; sides are multiples of 32 pixels.

        Args:
          images: normalised.
          train: train mode of the backbone.
          valid: images that count in batch norm statistics.
        """
        return self.detector.levels(self.backbone(images, train, valid))

    def say(
        self,
        images: Float32[Array, "I H W 3"],
        train: bool,
        valid: Bool[Array, "I"] | None = None,
    ) -> PyramidOutput:
        """Returns the network output for images."""
        levels = self.features(images, train, valid)
        return PyramidOutput(levels, self.detector(levels, train, valid))

    def look(self, images: Float32[Array, "I H W 3"], size: Int32[Array, "2"]) -> Any:
        """Runs every part that has parameters, for initialisation."""
        del size
        said = self.say(images, False)
        return said, self.embed(said.levels)

    def embed(self, levels: Levels) -> Float32[Array, "I P E"]:
        """Embeds the object at every location."""
        if self.track_head is None:
            count = sum(height * width for height, width in cells_of(levels))
            return jnp.zeros((len(levels[0]), count, 0), jnp.float32)
        return self.track_head(levels)

    def find(self, levels: Levels, size: Int32[Array, "2"]) -> Detections:
        """Finds objects of frames of one size, with masks over the canvas."""
        cells, out = cells_of(levels), self.detector(levels)
        places = places_of(cells)
        one = functools.partial(find, cells=cells, rule=self.rule)
        found = jax.vmap(lambda x: one(x, places, size))(out.dense)
        chosen = found.chosen[..., None]
        filters = jnp.take_along_axis(out.dense.filters, chosen, axis=1)
        at = Places(*(x[found.chosen] for x in places))
        masks = jax.vmap(shown_masks)(jax.vmap(mask_logits)(filters, out.features, at))
        embeds = jnp.take_along_axis(self.embed(levels), chosen, axis=1)
        height, width = cells[0]
        return on_canvas(
            Detections(
                boxes=found.boxes,
                scores=found.scores,
                labels=found.labels,
                valid=found.valid,
                embeds=embeds,
                descriptors=descriptors_in(found.boxes, levels, finest=FINEST),
                mask_logits=masks,
            ),
            (STRIDES[0] * height, STRIDES[0] * width),
        )

    def describe(self, levels: Levels, boxes: Float32[Array, "T N 4"]) -> Appearance:
        """Returns the embedding at each box's centre, and the mean feature in the box.

        The embedding is read from the level that is assigned boxes of this size.
        """
        place = functools.partial(place_of, cells=cells_of(levels), ranges=self.ranges)
        places = jax.vmap(place)(boxes)[..., None]
        embeds = jnp.take_along_axis(self.embed(levels), places, axis=1)
        return Appearance(embeds, descriptors_in(boxes, levels, finest=FINEST))


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: settings are inconsistent.
    """
    model = build_model(settings)
    detector = dense_detector(model, settings)
    loss = functools.partial(pair_and_frame_loss, model, settings.loss)
    return make_system(detector, loss, settings.test, settings.model.num_classes)


def build_detector(settings: Settings) -> Detector:
    """Builds the detector without a tracker."""
    return dense_detector(build_model(settings), settings)


def build_model(settings: Settings) -> Model:
    """Builds the network.

    Raises:
      ValueError: settings are inconsistent.
    """
    model, test = settings.model, settings.test
    check_classes(model.num_classes)
    width = model.track_head.width
    check_trained(settings.loss.detector, width)
    dtype = jnp.dtype(settings.compute_dtype)
    return Model(
        backbone=backbones.build_backbone(model.backbone, dtype),
        detector=build_modules(
            model.fpn, model.head, model.masks, classes=model.num_classes, dtype=dtype
        ),
        track_head=TrackMap(model.fpn.dim, width, dtype) if width else None,
        ranges=settings.loss.ranges,
        rule=LocationRule(test.score, test.nms, test.candidates, test.objects),
        style=pixel_style(model.pixels, model.backbone),
    )


def pair_and_frame_loss(
    model: Model,
    settings: LossSettings,
    variables: dict,
    batch: Batch,
    rng: PRNGKeyArray,
) -> tuple[Float32[Array, ""], LossAux]:
    """Returns the detection loss of all frames, plus the track loss of frame pairs.

    Args:
      model: the network.
      settings: `loss`.
      variables, batch, rng: see `System.loss`.
    """
    said, stats = _say(model, variables, batch, train=settings.detector)
    objects, places = objects_of(batch), places_of(cells_of(said.levels))
    terms: dict[str, Array] = {}
    notes: dict[str, Array] = {}
    if settings.detector:
        found = image_losses(
            rng,
            settings,
            said.out,
            objects,
            places=places,
            image_valid=batch.frame_valid.reshape(-1),
        )
        terms = {name: getattr(settings, name) * x for name, x in found.terms.items()}
        notes = {"positives_left_out": found.left_out}
    if model.track_head is not None:
        embeds = model.apply(variables, said.levels, method=Model.embed)
        # Not the key above, which models without a track head use, too.
        roles_rng, places_rng = jax.random.split(jax.random.fold_in(rng, 2))
        terms["track"] = settings.track * place_loss(
            places_rng,
            cast(Array, embeds),
            targets_of(settings, said.out, objects, places),
            objects.valid,
            roles=draw_roles(roles_rng, batch.frame_valid),
            most=settings.positives,
        )
    loss = sum(terms.values(), start=jnp.float32(0.0))
    return loss, LossAux(terms, stats, notes)


def _say(
    model: Model, variables: dict, batch: Batch, *, train: bool
) -> tuple[PyramidOutput, dict]:
    """Runs the network on all frames, without gradient if frozen; updates its stats."""
    pixels = jax.vmap(functools.partial(normalize, style=model.style))
    images = pixels(batch.images, batch.sizes)
    images = images.reshape(-1, *images.shape[2:])
    if not train:
        said = model.apply(variables, images, False, method=Model.say)
        return jax.lax.stop_gradient(cast(PyramidOutput, said)), {}
    said, updates = model.apply(
        variables,
        images,
        True,
        batch.frame_valid.reshape(-1),
        method=Model.say,
        mutable=["batch_stats"],
    )
    return cast(PyramidOutput, said), dict(updates.get("batch_stats", {}))

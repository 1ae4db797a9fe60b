"""The network of MaskProp: a cascade, the propagation branch and mask refinement.

Bertasius and Torresani, "Classifying, Segmenting, and Tracking Object Instances in
Video with Mask Propagation", CVPR 2020. Letters: N objects per frame, K classes, h w
cells of 'p3', C its channels, P taps, c channels per tap, S side of a patch, s side of
a refined mask.
"""

from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.association.propagation import MaskPropagation, PreparedFeatures
from vis_jax.association.track_head import TrackHead
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.cascade import (
    Cascade,
    CascadeFeatures,
    FoundObjects,
    cascade_parts,
)
from vis_jax.detectors.refine import Coarse, Refine, Refined, refine_masks
from vis_jax.detectors.two_stage import MASK_SIDE, Levels
from vis_jax.layers.temporal_sampling import TemporalSampling
from vis_jax.structures import Detections
from vis_jax.systems.cascade_loss import check_settings
from vis_jax.systems.mask_prop_settings import Settings
from vis_jax.typing import Array, Bool, Float, Float32, Int32, UInt8

STRIDE = 8  # pixels of a cell of 'p3'
SAMPLED = 2  # laterals enriched by temporal sampling: those of stages 4 and 5
FrameMaps = tuple[Float[Array, "_ _ D"], ...]  # maps of one frame
_PLACE = 1  # index of 'p3' among the levels


class Model(Cascade, kw_only=True):
    """A cascade with the parts that MaskProp adds.

    Attributes:
      propagation: propagates masks from frame to frame.
      refinement: refines masks in image patches.
      temporal: enriches the coarsest FPN laterals by those of other frames.
    """

    propagation: MaskPropagation
    refinement: Refine
    temporal: tuple[TemporalSampling, ...] = ()

    def laterals(self, images: Float[Array, "B H W 3"], train: bool) -> Levels:
        """Returns the laterals of normalised images, stages 2 .. 5, not merged."""
        return self.fpn.laterals(self.backbone(images, train))

    def merge(self, laterals: Levels) -> Levels:
        """Returns levels 'p2' .. 'p6' from `laterals`."""
        levels = self.fpn.merge(laterals)
        return tuple(levels[name] for name in sorted(levels))

    def read_laterals(self, laterals: Levels) -> CascadeFeatures:
        """Returns the features that the heads read, from `laterals`."""
        return self.read(self.merge(laterals))

    def sample(
        self, centre: FrameMaps, support: Levels, valid: Bool[Array, "S"]
    ) -> FrameMaps:
        """Returns the laterals of a frame, enriched by those of others.

        Args:
          centre: the frame's coarsest laterals, one per sampling block.
          support: the same of S other frames.
          valid: frames that take part.
        """
        parts = zip(self.temporal, centre, support, strict=True)
        return tuple(block(x, around, valid) for block, x, around in parts)

    def pyramid(self, images: Float[Array, "B H W 3"], train: bool) -> Levels:
        """See `Cascade`; each image is treated as a video of one frame."""
        laterals = self.laterals(images, train)
        none = jax.tree.map(lambda x: x[:, None][:, :0], laterals)
        return self.merge(self._sample_all(laterals, none))

    def pair_pyramid(self, images: Float[Array, "B H W 3"], train: bool) -> Levels:
        """Returns `pyramid` of key frames, then the others; pairs see each other."""
        laterals = self.laterals(images, train)
        half = len(images) // 2
        other = jax.tree.map(lambda x: jnp.roll(x, half, axis=0)[:, None], laterals)
        return self.merge(self._sample_all(laterals, other))

    def _sample_all(
        self, laterals: Levels, support: tuple[Float[Array, "B S _ _ D"], ...]
    ) -> Levels:
        """Returns laterals of frames, each enriched by its own support."""
        if not self.temporal:
            return laterals
        lead, first = support[0].shape[:2], len(laterals) - len(self.temporal)
        sample = nn.vmap(
            Model.sample, variable_axes={"params": None}, split_rngs={"params": False}
        )
        found = sample(self, laterals[first:], support[first:], jnp.ones(lead, bool))
        return laterals[:first] + found

    def prepare(self, p3: Float[Array, "h w C"]) -> PreparedFeatures:
        """See `MaskPropagation`."""
        return self.propagation.prepare(p3)

    def taps(self, p3: Float[Array, "h w C"]) -> Float[Array, "h w P c"]:
        """See `MaskPropagation`."""
        return self.propagation.taps(p3)

    def propagate(
        self,
        centre: PreparedFeatures,
        taps: Float[Array, "h w P c"],
        other: PreparedFeatures,
        masks: Float32[Array, "N h w"],
        valid: Bool[Array, "N"],
    ) -> Float32[Array, "N h w"]:
        """See `MaskPropagation`."""
        return self.propagation.propagate(centre, taps, other, masks, valid)

    def refine_patch(self, pixels: Float32[Array, "S S 4"]) -> Float32[Array, "s s"]:
        """See `Refine`."""
        return self.refinement(pixels)

    def look(
        self, images: Float[Array, "B H W 3"], size: Int32[Array, "2"]
    ) -> Detections:
        """Detects the objects of images; runs every part that has parameters."""
        features = self.features(images)
        found = self.find(features, size)
        p3 = p3_of(features.levels)[0]
        masks = jnp.zeros((1, *p3.shape[:2]), jnp.float32)
        self.propagation(p3, p3, masks, jnp.ones(1, bool))
        side = self.refinement.settings.side
        self.refine_patch(jnp.zeros((side, side, 4), jnp.float32))
        return found


def p3_of(levels: Levels) -> Float[Array, "B h w C"]:
    """Returns the level on which masks are propagated."""
    return levels[_PLACE]


def build_model(settings: Settings) -> Model:
    """Builds the network.

    Raises:
      ValueError: settings are inconsistent.
    """
    model, test = settings.model, settings.test
    check_settings(model, settings.loss, test.objects)
    dtype = jnp.dtype(settings.compute_dtype)
    width = model.track_head.width
    parts = cascade_parts(
        model,
        DetectRule(test.score, test.nms, 0.0, test.objects),
        dtype,
        TrackHead(width, dtype) if width else None,
    )
    blocks = SAMPLED if model.temporal == "stsn" else 0
    return Model(
        **parts,
        propagation=MaskPropagation(model.propagation, model.fpn.dim, dtype),
        refinement=Refine(model.refinement, dtype),
        temporal=tuple(TemporalSampling(dtype) for _ in range(blocks)),
    )


def mask_cells(settings: Settings) -> tuple[int, int]:
    """Returns height and width of the output masks."""
    refinement = settings.model.refinement
    side = 2 * MASK_SIDE
    if settings.test.refine:
        side = refinement.side // refinement.stride
    return side, side


class FrameFeatures(NamedTuple):
    """Features of frames, before detection."""

    pixels: Float32[Array, "T H W 3"]  # normalised
    features: CascadeFeatures


def see(
    model: Model,
    variables: dict,
    images: UInt8[Array, "T H W 3"],
    size: Int32[Array, "2"],
) -> FrameFeatures:
    """Computes the features of frames.

    Args:
      model: the network.
      variables: variables of the network.
      images: frames of one video.
      size: height and width of the content in pixels.
    """
    pixels = normalize(images, size, style=model.style)
    features = model.apply(variables, pixels, method="features")
    return FrameFeatures(pixels, cast(CascadeFeatures, features))


def see_laterals(
    model: Model,
    variables: dict,
    images: UInt8[Array, "T H W 3"],
    laterals: Levels,
    size: Int32[Array, "2"],
) -> FrameFeatures:
    """Same as `see`, from laterals already enriched by those of other frames."""
    pixels = normalize(images, size, style=model.style)
    features = model.apply(variables, laterals, method="read_laterals")
    return FrameFeatures(pixels, cast(CascadeFeatures, features))


class OutputObjects(NamedTuple):
    """Objects of frames, with the masks to output."""

    detections: Detections  # `mask_boxes` gives the region of each mask
    class_probs: Float32[Array, "T N K"]
    # As detected, over the boxes: the masks to propagate.
    probs: Float32[Array, "T N c c"]


def find(
    model: Model,
    variables: dict,
    seen: FrameFeatures,
    size: Int32[Array, "2"],
    *,
    refined: bool,
) -> OutputObjects:
    """Detects the objects of frames.

    Args:
      model: the network.
      variables: variables of the network.
      seen: features of the frames.
      size: height and width of the content in pixels.
      refined: output refined masks rather than those of the cascade.
    """
    found = model.apply(variables, seen.features, size, method="find_classes")
    detections, class_probs = cast(FoundObjects, found)
    # Logits are probabilities minus 0.5, so that upsampling is linear in probability.
    probs = detections.mask_logits + 0.5
    shown = detections._replace(mask_boxes=detections.boxes)
    if refined:

        def net(pixels: Float32[Array, "S S 4"]) -> Float32[Array, "s s"]:
            found = model.apply(variables, pixels, method="refine_patch")
            return cast(Array, found)

        def refine(frame: tuple[Array, Coarse]) -> Refined:
            return refine_masks(
                net, *frame, size=size, settings=model.refinement.settings
            )

        coarse = Coarse(detections.boxes, probs, detections.valid)
        masks = jax.lax.map(refine, (seen.pixels, coarse))
        real = detections.valid[..., None, None]
        shown = detections._replace(
            mask_logits=jnp.where(real, masks.probs - 0.5, 0.0), mask_boxes=masks.boxes
        )
    return OutputObjects(shown, class_probs, probs)

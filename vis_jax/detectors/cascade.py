"""Hybrid Task Cascade: three box heads and three mask heads in sequence.

Chen et al., "Hybrid task cascade for instance segmentation", CVPR 2019. Every stage has
its own weights: it classifies and refines the boxes of the previous stage, and its mask
head receives the hidden features of the previous mask head. A semantic branch adds its
features to those of all regions. Letters: R regions per image, S side of pooled
features, N objects per frame, K classes, h w cells of a stride-8 map.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.backbones.fpn import FPN
from vis_jax.detectors import semantic_head
from vis_jax.detectors.box_head import (
    DetectRule,
    FoundClasses,
    SharedBoxHead,
    detect_shared,
)
from vis_jax.detectors.cascade_settings import CascadeRules, Settings, build_rules
from vis_jax.detectors.conventions import CONVENTIONS
from vis_jax.detectors.mask_head import FlowMaskHead, MaskHead, merge_masks
from vis_jax.detectors.rpn import RPN, Proposals
from vis_jax.detectors.semantic_head import SemanticHead
from vis_jax.detectors.two_stage import (
    BOX_SIDE,
    MASK_SIDE,
    RATIOS,
    Levels,
    TwoStage,
)
from vis_jax.ops.box_coder import decode
from vis_jax.ops.boxes import clip_boxes
from vis_jax.ops.padding import zero_padding
from vis_jax.ops.roi_align import dense_roi_align
from vis_jax.structures import Appearance, Detections
from vis_jax.typing import Array, Bool, Float, Float32, Int32


class CascadeFeatures(NamedTuple):
    """Features that the heads read; optional fields need a semantic branch."""

    levels: Levels  # 'p2' .. 'p6'
    semantic: Float[Array, "B h w D"] | None  # added to the features of regions
    semantic_logits: Float32[Array, "B h w S"] | None


class StageOutput(NamedTuple):
    """Predictions of one stage for each region; the last class is background."""

    class_logits: Float32[Array, "B R K1"]
    deltas: Float32[Array, "B R 4"]  # class-agnostic


class StageOutputs(NamedTuple):
    """Boxes and predictions of all stages."""

    boxes: tuple[Float32[Array, "B R 4"], ...]  # inputs of all stages, last output
    outputs: tuple[StageOutput, ...]  # one per stage


class FoundObjects(NamedTuple):
    """Detections of images with appearance, masks and class probabilities."""

    detections: Detections
    class_probs: Float32[Array, "*lead N K"]  # without background


class Cascade(TwoStage):
    """Backbone, pyramid, proposals, semantic branch and the heads of all stages.

    Attributes:
      rules: turn head outputs into boxes.
      box_heads, mask_heads: one per stage, in order.
      semantic_head: None uses the pyramid alone.
      track_head: embeds regions for a tracker; None for none.
      num_classes: K.
      style: pixel normalisation, see `normalize`.
    """

    rules: CascadeRules
    box_heads: tuple[SharedBoxHead, ...]
    mask_heads: tuple[MaskHead, ...]
    semantic_head: SemanticHead | None
    num_classes: int
    style: str
    track_head: nn.Module | None = None

    def features(
        self, images: Float[Array, "B H W 3"], train: bool = False
    ) -> CascadeFeatures:
        """Returns features of normalised images; sides are multiples of 32 pixels.

        Args:
          train: train mode of the backbone; with batch norm, 'batch_stats' must be
            mutable.
        """
        return self.read(self.pyramid(images, train))

    def pyramid(self, images: Float[Array, "B H W 3"], train: bool) -> Levels:
        """Returns levels 'p2' .. 'p6' of normalised images; see `features`."""
        return self.levels(self.backbone(images, train))

    def read(self, levels: Levels) -> CascadeFeatures:
        """Returns the features of images from their pyramid."""
        if self.semantic_head is None:
            return CascadeFeatures(levels, None, None)
        logits, embedding = self.semantic_head(levels)
        return CascadeFeatures(levels, embedding, logits)

    def pool_both(
        self, features: CascadeFeatures, boxes: Float32[Array, "B R 4"], side: int
    ) -> Float[Array, "B R S S D"]:
        """Returns RoI features with those of the semantic branch added.

        Args:
          boxes: in pixels.
          side: S, `BOX_SIDE` or `MASK_SIDE`.
        """
        pooled = self.pool(features.levels, boxes, side)
        if features.semantic is None:
            return pooled
        return pooled + self.pool_semantic(features.semantic, boxes, side)

    def classify(
        self, stage: int, features: CascadeFeatures, boxes: Float32[Array, "B R 4"]
    ) -> StageOutput:
        """Returns class logits and deltas of regions at a stage.

        Args:
          stage: 0, 1, ..
          boxes: in pixels.
        """
        pooled = self.pool_both(features, boxes, BOX_SIDE)
        out = self.box_heads[stage](pooled)
        return StageOutput(out.class_logits, out.deltas[:, :, 0])

    def refine(
        self,
        stage: int,
        deltas: Float32[Array, "B R 4"],
        boxes: Float32[Array, "B R 4"],
        sizes: Int32[Array, "B 2"],
    ) -> Float32[Array, "B R 4"]:
        """Applies a stage's deltas to boxes and clips them to the images.

        Args:
          stage: 0, 1, ..; selects the scale of the deltas.
          deltas: relative to `boxes`.
          boxes: in pixels.
          sizes: height and width of each image's content in pixels.
        """
        moved = decode(deltas, boxes, coder=self.rules.roi_coders[stage])
        return jax.vmap(clip_boxes)(moved, sizes)

    def mask_logits(
        self, stage: int, features: CascadeFeatures, boxes: Float32[Array, "B R 4"]
    ) -> Float32[Array, "B R H W K"]:
        """Returns a stage's mask logits for every class, over each region's box.

        The hidden layers of earlier stages run on the same regions, with gradient.

        Args:
          stage: 0, 1, ..
          boxes: in pixels.

        Returns:
          Logits of 2 `MASK_SIDE` x 2 `MASK_SIDE` cells.
        """
        hidden = self.mask_hidden(features, boxes, stage + 1)[-1]
        return _unflatten(self.mask_heads[stage].predict(hidden), boxes)

    def all_masks(
        self, features: CascadeFeatures, boxes: Float32[Array, "B R 4"]
    ) -> tuple[Float32[Array, "B R H W K"], ...]:
        """Returns `mask_logits` of every stage; regions are pooled once."""
        hidden = self.mask_hidden(features, boxes, len(self.mask_heads))
        return self.predict_masks(hidden, boxes)

    def predict_masks(
        self, hidden: list[Float[Array, "_ S S D"]], boxes: Float32[Array, "B R 4"]
    ) -> tuple[Float32[Array, "B R H W K"], ...]:
        """Returns `mask_logits` of every stage from hidden features.

        Args:
          hidden: hidden features of each stage, see `mask_hidden`.
          boxes: the regions they were pooled from.
        """
        return tuple(
            _unflatten(head.predict(x), boxes)
            for head, x in zip(self.mask_heads, hidden, strict=True)
        )

    def mask_probs(
        self,
        features: CascadeFeatures,
        boxes: Float32[Array, "B N 4"],
        labels: Int32[Array, "B N"],
    ) -> Float32[Array, "B N H W"]:
        """Returns masks of objects over their boxes: mean probability of stages."""
        return merge_masks(self.all_masks(features, boxes), labels)

    def run_stages(
        self,
        features: CascadeFeatures,
        boxes: Float32[Array, "B R 4"],
        sizes: Int32[Array, "B 2"],
    ) -> StageOutputs:
        """Runs all stages, each on the refined boxes of the previous one.

        Args:
          boxes: in pixels, input of the first stage.
          sizes: height and width of each image's content in pixels.
        """
        refined, outputs = [boxes], []
        for stage in range(len(self.box_heads)):
            outputs.append(self.classify(stage, features, refined[-1]))
            deltas = outputs[-1].deltas
            refined.append(self.refine(stage, deltas, refined[-1], sizes))
        return StageOutputs(tuple(refined), tuple(outputs))

    def detect(
        self,
        features: CascadeFeatures,
        proposals: Proposals,
        sizes: Int32[Array, "B 2"],
    ) -> FoundClasses:
        """Detects objects among the proposals of each image.

        Args:
          proposals: proposals of each image.
          sizes: height and width of each image's content in pixels.
        """
        stages = self.run_stages(features, proposals.boxes, sizes)
        return self.choose(stages, proposals.valid)

    def choose(self, stages: StageOutputs, valid: Bool[Array, "B R"]) -> FoundClasses:
        """Detects objects from all stages' mean class logits and the last boxes.

        Args:
          stages: see `run_stages`.
          valid: False marks padded regions.
        """
        rules = self.rules

        def one(
            logits: Float32[Array, "R K1"],
            boxes: Float32[Array, "R 4"],
            valid: Bool[Array, "R"],
        ) -> FoundClasses:
            return detect_shared(
                logits,
                boxes,
                valid=valid,
                rule=rules.detections,
                candidates=rules.candidates,
            )

        logits = [out.class_logits for out in stages.outputs]
        mean = sum(logits[1:], logits[0]) / len(logits)
        return jax.vmap(one)(mean, stages.boxes[-1], valid)

    def describe(
        self, features: CascadeFeatures, boxes: Float32[Array, "B R 4"]
    ) -> Appearance:
        """Returns appearance features of regions for the trackers.

        The track head reads the pyramid alone; descriptors are the classifier input of
        the last stage.
        """
        pooled = self.pool(features.levels, boxes, BOX_SIDE)
        embeds = jnp.zeros((*boxes.shape[:2], 0), jnp.float32)
        if self.track_head is not None:
            embeds = self.track_head(pooled)
        if features.semantic is not None:
            pooled += self.pool_semantic(features.semantic, boxes, BOX_SIDE)
        descriptors = self.box_heads[-1].describe(pooled).astype(jnp.float32)
        length = jnp.linalg.norm(descriptors, axis=-1, keepdims=True)
        return Appearance(embeds, descriptors / jnp.maximum(length, 1e-6))

    def look(
        self, images: Float[Array, "B H W 3"], size: Int32[Array, "2"]
    ) -> Detections:
        """Detects objects from pixels; runs every part that has parameters."""
        return self.find(self.features(images), size)

    def find(self, features: CascadeFeatures, size: Int32[Array, "2"]) -> Detections:
        """Detects objects in images of one size, with appearance and masks."""
        return self.find_classes(features, size).detections

    def find_classes(
        self, features: CascadeFeatures, size: Int32[Array, "2"]
    ) -> FoundObjects:
        """Same as `find`, with all class probabilities.

        Args:
          size: height and width of the content in pixels.
        """
        sizes = jnp.broadcast_to(size[None], (len(features.levels[0]), 2))
        _, proposals = self.propose(features.levels, sizes)
        found, class_probs = self.detect(features, proposals, sizes)
        appearance = self.describe(features, found.boxes)
        # Minus 0.5, so that upsampling acts on probabilities and zero is the threshold.
        masks = self.mask_probs(features, found.boxes, found.labels) - 0.5
        parts = (zero_padding(x, found.valid) for x in (*appearance, masks))
        return FoundObjects(Detections(*found, *parts), class_probs)

    def pool_semantic(
        self,
        semantic: Float[Array, "B h w D"],
        boxes: Float32[Array, "B R 4"],
        side: int,
    ) -> Float[Array, "B R S S D"]:
        """Returns RoI features of the semantic branch alone.

        As in the source, `MASK_SIDE` cells are pooled; smaller outputs average these.
        """
        one = functools.partial(
            dense_roi_align,
            scale=1 / semantic_head.STRIDE,
            size=(side, side),
            parts=MASK_SIDE // side,
            samples=self.rules.roi_samples,
            convention=self.rules.roi_convention,
        )
        return jax.vmap(one)(semantic, boxes)

    def mask_hidden(
        self, features: CascadeFeatures, boxes: Float32[Array, "B R 4"], stages: int
    ) -> list[Float[Array, "_ S S D"]]:
        """Returns the last hidden layers of the first mask heads, for all images.

        Args:
          boxes: in pixels.
          stages: number of heads to run.
        """
        pooled = self.pool_both(features, boxes, MASK_SIDE)
        pooled = pooled.reshape(-1, *pooled.shape[2:])
        hidden: list[jax.Array] = []
        for head in self.mask_heads[:stages]:
            x = pooled
            if isinstance(head, FlowMaskHead):
                x = head.join(pooled, hidden[-1])
            hidden.append(head.convolve(x))
        return hidden


def _unflatten(
    x: Float32[Array, "_ H W K"], boxes: Float32[Array, "B R 4"]
) -> Float32[Array, "B R H W K"]:
    """Splits the regions of all images by image again."""
    return x.reshape(*boxes.shape[:2], *x.shape[1:])


def cascade_parts(
    settings: Settings,
    detections: DetectRule,
    dtype: jnp.dtype,
    track_head: nn.Module | None = None,
) -> dict[str, Any]:
    """Returns the network's fields for a config; `model.num_classes` must be known.

    Args:
      settings: `model` of the config.
      detections: turns regions into objects; its least side is taken from the
        conventions.
      dtype: compute dtype.
      track_head: track head of the network; None for none.
    """
    classes, mask, dim = settings.num_classes, settings.mask_head, settings.fpn.dim
    stages = len(settings.stages.iou)
    kinds = (MaskHead, *[FlowMaskHead] * (stages - 1))
    least_side = CONVENTIONS[settings.conventions].least_detection
    return dict(
        backbone=backbones.build_backbone(settings.backbone, dtype),
        fpn=FPN(**vars(settings.fpn), dtype=dtype),
        rpn=RPN(settings.rpn.dim, len(RATIOS), dtype),
        rules=build_rules(settings, detections._replace(least_side=least_side)),
        box_heads=tuple(
            SharedBoxHead(classes, settings.box_head.width, dtype)
            for _ in range(stages)
        ),
        mask_heads=tuple(kind(classes, mask.dim, mask.convs, dtype) for kind in kinds),
        semantic_head=semantic_head.build(settings.semantic, classes, dim, dtype),
        num_classes=classes,
        style=backbones.pixel_style(settings.backbone),
        track_head=track_head,
    )

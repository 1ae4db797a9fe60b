"""IAI on Mask R-CNN: the same identities and memories, on RoI features.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022, report it in Table 6 without released code. The ID head is a
layer beside the class layer and its loss has the same form; everything else follows
CondInst (`systems.iai`). Letters: B images at one time, T frames, D detections per
frame, R regions.
"""

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.association import frame_memory
from vis_jax.association.frame_memory import FrameMemory, HybridAssociation, Tokens
from vis_jax.association.identity import blank_map
from vis_jax.backbones.fpn import FPN
from vis_jax.detectors import mask_rcnn
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.id_objects import IdObjects
from vis_jax.detectors.mask_head import MaskHead, of_label
from vis_jax.detectors.mask_rcnn import (
    BOX_SIDE,
    RATIOS,
    Levels,
    MaskRCNN,
    build_rules,
    train_rules,
)
from vis_jax.detectors.mask_rcnn_ids import (
    IdBoxHead,
    IdBoxOutput,
    IdRegionRule,
    find_boxes,
)
from vis_jax.detectors.rpn import RPN
from vis_jax.ops.masks import stretch_masks
from vis_jax.settings import section
from vis_jax.structures import Batch, Clip, LossAux, Predictions, Render
from vis_jax.systems import iai_video
from vis_jax.systems.iai_loss import clip_loss, pixels_of
from vis_jax.systems.iai_mask_rcnn_loss import LossSettings, look
from vis_jax.systems.iai_model import (
    FrameObjects,
    FrameStages,
    IdCount,
    Stages,
    associate,
    build_association,
    start_memory,
)
from vis_jax.systems.iai_video import (
    VideoIdentities,
    follow_frame,
    report,
    stages_of,
    start_video,
)
from vis_jax.systems.system import RETRAIN, Dtype, System, check_classes, window_of
from vis_jax.typing import Array, Bool, Float32, Int32


@section
class ModelSettings(mask_rcnn.Settings):
    """`model` of an IAI on Mask R-CNN."""

    # N identities, the last one for new objects.
    ids: IdCount = 20
    hab: frame_memory.Settings = frame_memory.Settings()


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: iai_video.TestSettings = iai_video.TestSettings()


class State(NamedTuple):
    """State of a video after some frame."""

    memory: FrameMemory
    video: VideoIdentities


class Model(MaskRCNN):
    """Backbone, association and Mask R-CNN.

    Attributes:
      hab: the association block.
      rule: turns regions into objects.
      style: pixel normalisation, see `normalize`.
    """

    hab: HybridAssociation
    rule: IdRegionRule
    style: str

    def stages(
        self,
        images: Float32[Array, "I H W 3"],
        train: bool = False,
        valid: Bool[Array, "I"] | None = None,
    ) -> Stages:
        """Returns features of the backbone; see `iai_model.Model`."""
        return self.backbone(images, train, valid)

    def pyramid(
        self, features: Stages, memory: FrameMemory, train: bool = False
    ) -> tuple[Levels, Tokens | None]:
        """Returns the pyramid, informed by earlier frames, and the tokens to remember.

        Args:
          features: features of the images.
          memory: one per video.
          train: enables drop path (rng 'drop_path').
        """
        features, tokens = associate(self.hab, features, memory, train)
        return self.levels(features), tokens

    def identify(self, levels: Levels, boxes: Float32[Array, "B R 4"]) -> IdBoxOutput:
        """Predicts classes, boxes and identities of regions."""
        return self.box_head.identify(self.pool(levels, boxes, BOX_SIDE))

    def see(
        self,
        features: Stages,
        memory: FrameMemory,
        size: Int32[Array, "2"],
        first: Bool[Array, ""],
    ) -> FrameObjects:
        """Finds the objects of the next frame of one video; see `iai_model.Model`.

        Masks cover their boxes.
        """
        levels, tokens = self.pyramid(features, memory)
        _, proposals = self.propose(levels, size[None])
        out = self.identify(levels, proposals.boxes)
        found = find_boxes(
            jax.tree.map(lambda x: x[0], out),
            proposals.boxes[0],
            valid=proposals.valid[0],
            size=size,
            first=first,
            coder=self.rules.roi_coder,
            rule=self.rule,
        )
        masks = of_label(self.masks(levels, found.boxes[None])[0], found.labels)
        masks = jnp.where(found.valid[:, None, None], masks, 0.0)
        objects = IdObjects(
            found.boxes, found.class_scores, found.id_scores, masks, found.valid
        )
        return FrameObjects(objects, tokens)

    def look(
        self,
        images: Float32[Array, "B H W 3"],
        size: Int32[Array, "2"],
        memory: FrameMemory,
    ) -> Any:
        """Runs every part that has parameters, for initialisation."""
        seen = self.see(self.stages(images), memory, size, jnp.bool_(True))
        _, height, width, _ = images.shape
        real = jnp.ones(1, bool)
        ids = blank_map(height, width)[None]
        tokens = cast(Tokens, seen.tokens)
        after = self.hab.remember(memory, tokens, ids, new=~real, real=real)
        return seen.objects, after


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: settings are inconsistent.
    """
    model = build_model(settings)

    def init(rng, batch: Batch):
        images = jnp.zeros((1, *batch.images.shape[2:]), jnp.float32)
        canvas = (images.shape[1], images.shape[2])
        memory = start_memory(model.hab, 1, canvas, slots=1)
        return model.init(rng, images, batch.sizes[0], memory, method="look")

    def start(clip: Clip) -> State:
        canvas = (clip.images.shape[1], clip.images.shape[2])
        memory = start_memory(model.hab, 1, canvas, slots=settings.model.hab.slots)
        rules = iai_video.rules_of(settings.test, settings.model.ids)
        return State(
            cast(FrameMemory, memory), start_video(rules, settings.model.num_classes)
        )

    return System(
        init,
        functools.partial(_loss, model, settings),
        start,
        functools.partial(_step, model, settings),
        window_of(settings.test),
        Render("rank"),
        f"model.ids{RETRAIN}",
    )


def build_model(settings: Settings) -> Model:
    """Builds the network.

    Raises:
      ValueError: settings are inconsistent.
    """
    model, test = settings.model, settings.test
    classes, dtype = model.num_classes, jnp.dtype(settings.compute_dtype)
    check_classes(classes)
    rule = IdRegionRule(test.score, test.id_score, test.nms, test.objects, test.rank)
    return Model(
        backbone=backbones.build_backbone(model.backbone, dtype),
        fpn=FPN(**vars(model.fpn), dtype=dtype),
        rpn=RPN(model.rpn.dim, len(RATIOS), dtype),
        box_head=IdBoxHead(classes, model.box_head.width, dtype, model.ids),
        mask_head=MaskHead(classes, model.mask_head.dim, model.mask_head.convs, dtype),
        # Its DetectRule is unused: `rule` takes its place.
        rules=build_rules(model, DetectRule(test.score, test.nms, 0.0, test.objects)),
        hab=build_association(model.hab, model.backbone, ids=model.ids, dtype=dtype),
        rule=rule,
        style=backbones.pixel_style(model.backbone),
    )


def _loss(
    model: Model, settings: Settings, variables: dict, batch: Batch, rng: Any
) -> tuple[Float32[Array, ""], LossAux]:
    """Returns the loss of a batch."""
    weights = {k: x for k, x in vars(settings.loss).items() if k != "permute"}
    return clip_loss(
        model,
        functools.partial(look, model, train_rules(settings.model)),
        weights,
        variables,
        pixels_of(batch, model.style),
        batch,
        rng,
        ids=settings.model.ids,
        permute=settings.loss.permute,
        train=True,
    )


def _step(
    model: Model, settings: Settings, variables: dict, state: State, clip: Clip
) -> tuple[State, Predictions]:
    """Processes the next frames of a video."""
    size, real = jnp.asarray(clip.size), jnp.asarray(clip.frame_valid)
    canvas = (clip.images.shape[1], clip.images.shape[2])
    rules = iai_video.rules_of(settings.test, settings.model.ids)

    def pixels(objects: IdObjects) -> Bool[Array, "D H W"]:
        return stretch_masks(_shown(objects), objects.boxes, size=canvas) > 0

    def follow(state: State, now: tuple[FrameStages, Array]) -> tuple[State, Any]:
        features, real = now
        found = follow_frame(
            model,
            rules,
            variables,
            state.memory,
            state.video,
            features,
            size=size,
            real=real,
            pixels=pixels,
        )
        after = State(cast(FrameMemory, found.memory), found.named.video)
        return after, (found.named.slots, _shown(found.objects), found.objects.boxes)

    features = stages_of(model, variables, clip, chunk=settings.test.chunk)
    state, (slots, shown, boxes) = jax.lax.scan(follow, state, (features, real))
    return state, report(rules, state.video, slots, shown, boxes)


def _shown(objects: IdObjects) -> Float32[Array, "D h w"]:
    """Returns probabilities minus 0.5, upsampled as for MaskTrack R-CNN."""
    return jax.nn.sigmoid(objects.mask_logits) - 0.5

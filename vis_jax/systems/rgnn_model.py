"""The network of RGNNVIS: a frozen YOLACT, and the graph that links its detections.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022. Letters: T frames of one video, N detections per frame, C classes including the
background, which comes first, M tracks, A appearance channels.
"""

from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.association import track_graph, track_masks
from vis_jax.association.track_appearance import (
    INSIDE_BOX,
    AppearanceEncoder,
    FrameAppearance,
    Masks,
    PooledFeatures,
    pool,
)
from vis_jax.association.track_decisions import ACTIVE, Thresholds
from vis_jax.association.track_graph import (
    FrameDecisions,
    GraphFrame,
    Memory,
    TrackGraph,
)
from vis_jax.association.track_masks import MaskReweighting, detection_masks
from vis_jax.detectors import yolact
from vis_jax.detectors.yolact import (
    PriorSettings,
    YolactRule,
    build_modules,
    canvas_of,
    combine,
    find,
    priors_of,
)
from vis_jax.ops.masks import between_corners
from vis_jax.settings import Count, Range, section
from vis_jax.typing import Array, Bool, Float32, Int32

_Even = Annotated[int, Range(least=2)]


@section
class AppearanceSettings:
    """`model.appearance`: appearance features of detections."""

    width: _Even = 512  # appearance channels, half from each of res4 and res5
    narrow: Count = 128  # bottleneck channels of the residual
    positions: bool = False  # add sine embeddings, as in RGNNVIS++
    # Apply the residual to the whole frame's features, too; False: the released code.
    describe_background: bool = True

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ValueError(f"width: expected an even number, got {self.width}")


@section
class ModelSettings(yolact.Settings):
    """`model`."""

    appearance: AppearanceSettings = AppearanceSettings()
    graph: track_graph.Settings = track_graph.Settings()
    masks: track_masks.Settings = track_masks.Settings()


class FrozenDetections(NamedTuple):
    """Output of the detector for frames; no gradient flows into it."""

    valid: Bool[Array, "T N"]
    logits: Float32[Array, "T N C"]
    scores: Float32[Array, "T N"]
    boxes: Float32[Array, "T N 4"]  # in canvas pixels
    mask_logits: Float32[Array, "T N h w"]  # over the canvas
    inside: Bool[Array, "T N h w"]  # cells within the box
    pooled: dict[str, PooledFeatures]


class Model(nn.Module):
    """Backbone, detector and association.

    Attributes:
      masks: None uses the masks of the detections.
      background: mask logit that a track must exceed to win a pixel.
      positions: channels of the position embeddings; 0 for none.
      priors, rule: turn priors into objects.
      style: pixel normalisation, see `normalize`.
    """

    backbone: nn.Module
    detector: nn.Module
    appearance: nn.Module
    graph: TrackGraph
    masks: nn.Module | None
    background: float
    positions: int
    priors: PriorSettings
    rule: YolactRule
    style: str

    def see(
        self,
        images: Float32[Array, "T H W 3"],
        sizes: Int32[Array, "T 2"],
        train: bool = False,
    ) -> FrozenDetections:
        """Runs the detector on frames.

        Args:
          images: normalised, sides multiples of 32 pixels.
          sizes: height and width of the content.
          train: enables channel dropout in the backbone (rng 'dropout'); batch
            statistics are not updated.
        """
        features = self.detector.dropped(self.backbone(images), train)
        levels = self.detector.levels(features)
        out, canvas = self.detector(levels), canvas_of(levels)
        priors = priors_of(levels, self.priors)
        found = jax.vmap(lambda x, size: find(x, priors, size, rule=self.rule))(
            out, sizes
        )

        def gather(x: Float32[Array, "T P _"]) -> Float32[Array, "T N _"]:
            return jnp.take_along_axis(x, found.priors[..., None], axis=1)

        masks = jax.vmap(combine)(out.prototypes, gather(out.coefficients))
        cells = (masks.shape[2], masks.shape[3])
        inside = jax.vmap(lambda x: between_corners(x, cells, canvas))(found.boxes)
        inside &= found.valid[..., None, None]
        pooled = pool(features, Masks(masks, inside, found.valid), self.positions)
        sight = FrozenDetections(
            found.valid,
            gather(out.class_logits),
            found.scores,
            found.boxes,
            masks,
            inside,
            pooled,
        )
        return jax.lax.stop_gradient(sight)

    def describe(
        self, pooled: dict[str, PooledFeatures], valid: Bool[Array, "T N"]
    ) -> FrameAppearance:
        """Returns appearance features of detections and of frames."""
        return self.appearance(pooled, valid)

    def link(
        self,
        memory: Memory,
        frame: GraphFrame,
        canvas: tuple[int, int],
        thresholds: Thresholds,
        cues: bool,
    ) -> tuple[Memory, FrameDecisions]:
        """See `TrackGraph`."""
        return self.graph(
            memory, frame, canvas=canvas, thresholds=thresholds, cues=cues
        )

    def classify(self, hidden: Float32[Array, "M D"]) -> Float32[Array, "M C"]:
        """Returns class logits of tracks."""
        return self.graph.classify(hidden)

    def draw(
        self,
        mask_logits: Float32[Array, "N h w"],
        inside: Bool[Array, "N h w"],
        linked: FrameDecisions,
    ) -> Float32[Array, "M h w"]:
        """Returns mask logits of the tracks of one frame.

        Args:
          mask_logits, inside: mask logits and box interiors of the detections.
          linked: decisions of the frame.
        """
        active = linked.status == ACTIVE
        own, box = mask_logits[linked.chosen], inside[linked.chosen]
        if self.masks is None:
            return detection_masks(own, box, active)
        return self.masks(own, box, linked.hidden, active)

    def look(self, images: Float32[Array, "T H W 3"], size: Int32[Array, "2"]) -> Any:
        """Runs every part that has parameters, on the first frame."""
        sight = self.see(images, jnp.broadcast_to(size[None], (len(images), 2)))
        seen = frames_of(
            sight,
            self.describe(sight.pooled, sight.valid),
            jnp.ones(len(images), bool),
        )
        memory = track_graph.empty_memory(self.graph.settings, self.graph.width)
        frame = jax.tree.map(lambda x: x[0], seen)
        canvas = (images.shape[1], images.shape[2])
        _, linked = self.link(memory, frame, canvas, Thresholds(0.0, 0.0), False)
        return self.draw(sight.mask_logits[0], sight.inside[0], linked)


def call(model: Model, variables: dict, method: str, *arguments: Any) -> Any:
    """Calls a method of the model, without dropout."""
    return model.apply(variables, *arguments, method=method)


def frames_of(
    sight: FrozenDetections, described: FrameAppearance, real: Bool[Array, "T"]
) -> GraphFrame:
    """Builds the input of the association; padded frames have no detections."""
    return GraphFrame(
        valid=sight.valid & real[:, None],
        logits=sight.logits,
        scores=sight.scores,
        boxes=sight.boxes,
        appearance=described.appearance,
        background=described.background,
        real=real,
    )


def link_frames(
    model: Model,
    variables: dict,
    memory: Memory,
    frames: GraphFrame,
    *,
    canvas: tuple[int, int],
    thresholds: Thresholds,
    cues: bool,
    bptt: int = 0,
) -> tuple[Memory, FrameDecisions]:
    """Runs the association over T frames in order.

    Args:
      memory: before the frames.
      canvas, thresholds, cues: see `TrackGraph`.
      bptt: frames after which the memory's gradient is cut; 0 for never.
    """
    index = jnp.arange(frames.real.shape[0])
    cut = index % bptt == 0 if bptt else jnp.zeros_like(index, bool)

    def step(
        memory: Memory, now: tuple[GraphFrame, Array]
    ) -> tuple[Memory, FrameDecisions]:
        frame, cut = now
        if bptt:
            fixed = jax.lax.stop_gradient(memory)
            memory = jax.tree.map(lambda a, b: jnp.where(cut, a, b), fixed, memory)
        return call(model, variables, "link", memory, frame, canvas, thresholds, cues)

    return jax.lax.scan(step, memory, (frames, cut))


def build_model(settings: ModelSettings, rule: YolactRule, dtype: jnp.dtype) -> Model:
    """Builds the network.

    Args:
      settings: `num_classes` must be that of the data.
      rule: turns priors into objects.
      dtype: compute dtype of backbone and detector; the rest is float32.
    """
    appearance, classes = settings.appearance, settings.num_classes + 1
    reweight, channels = settings.masks.reweight, settings.masks.channels
    return Model(
        backbone=backbones.build_backbone(settings.backbone, dtype),
        detector=build_modules(settings, dtype),
        appearance=AppearanceEncoder(
            appearance.width, appearance.narrow, appearance.describe_background
        ),
        graph=TrackGraph(settings.graph, appearance.width, classes),
        masks=MaskReweighting(channels) if reweight else None,
        background=settings.masks.background if reweight else INSIDE_BOX,
        positions=appearance.width // 2 if appearance.positions else 0,
        priors=settings.priors,
        rule=rule,
        style=backbones.pixel_style(settings.backbone),
    )

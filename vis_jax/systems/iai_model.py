"""The network of IAI: CondInst with a memory of earlier frames and an ID head.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022. Letters: B images at one time, one per video; N identities, h
w cells of the finest level.
"""

from typing import Annotated, Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.association import frame_memory
from vis_jax.association.frame_memory import (
    FrameMemory,
    HybridAssociation,
    Tokens,
    empty_memory,
)
from vis_jax.association.identity import MOST_IDS, blank_map
from vis_jax.detectors import condinst_settings
from vis_jax.detectors.condinst import CondInstOutput, build_modules
from vis_jax.detectors.condinst_ids import IdRule, find_objects
from vis_jax.detectors.fcos import Cells, Places, cells_of, places_of
from vis_jax.detectors.id_objects import IdObjects
from vis_jax.losses.fcos import IdLoss
from vis_jax.settings import Count, Range, section
from vis_jax.systems.system import check_classes
from vis_jax.typing import Array, Bool, Float, Float32, Int32, UInt8

STAGES = ("res3", "res4", "res5")  # backbone stages that the pyramid reads

# N identities, one of which marks new objects; bounded by the range of id maps.
IdCount = Annotated[int, Range(least=2, most=MOST_IDS)]

Stages = dict[str, Float[Array, "B _ _ _"]]
FrameStages = dict[str, Float[Array, "_ _ _"]]  # stages of one frame


@section
class IdSettings:
    """`model.ids`: the identities."""

    # Without identities there is no ID head: detection uses the class alone, linking
    # uses `test.link`, and objects are remembered without ids.
    on: bool = True
    # N channels of the ID head, the last one for new objects.
    count: IdCount = 20
    convs: Count = 1  # 3x3 convolutions of the ID head before its output
    # Loss of the ID head. focal, or the two readings of the paper's "CE": bce, each
    # identity on its own, or softmax, with an additional background channel.
    loss: IdLoss = "focal"


@section
class ModelSettings(condinst_settings.ModelSettings):
    """`model` of an IAI on CondInst."""

    ids: IdSettings = IdSettings()
    # Without it the pyramid reads plain backbone features, and frames are independent.
    association: bool = True
    hab: frame_memory.Settings = frame_memory.Settings()


class IaiOutput(NamedTuple):
    """Output of the network for images."""

    out: CondInstOutput
    places: Places
    cells: Cells
    tokens: Tokens | None  # tokens to remember; None without association


class FrameObjects(NamedTuple):
    """Objects of one frame of one video."""

    objects: IdObjects
    tokens: Tokens | None


class Model(nn.Module):
    """Backbone, association and detector.

    Attributes:
      hab: the association block; None for none.
      rule: turns locations into objects.
      style: pixel normalisation, see `normalize`.
    """

    backbone: nn.Module
    detector: nn.Module
    hab: HybridAssociation | None
    rule: IdRule
    style: str

    def stages(
        self,
        images: Float32[Array, "I H W 3"],
        train: bool = False,
        valid: Bool[Array, "I"] | None = None,
    ) -> Stages:
        """Returns features of the backbone, computed per image.

        Args:
          images: normalised, sides multiples of 32 pixels.
          train: train mode of the backbone.
          valid: images that count in batch norm statistics.
        """
        features = self.backbone(images, train, valid)
        return {name: features[name] for name in STAGES}

    def say(
        self,
        features: Stages,
        memory: FrameMemory | None,
        train: bool = False,
        valid: Bool[Array, "B"] | None = None,
    ) -> IaiOutput:
        """Returns the output for images, given the memory of earlier frames.

        Args:
          features: features of the images.
          memory: one per video; None without association.
          train: enables drop path (rng 'drop_path') and batch norm with batch
            statistics.
          valid: images that count in these statistics.
        """
        features, tokens = associate(self.hab, features, memory, train)
        levels = self.detector.levels(features)
        out, cells = self.detector(levels, train, valid), cells_of(levels)
        return IaiOutput(out, places_of(cells), cells, tokens)

    def see(
        self,
        features: Stages,
        memory: FrameMemory | None,
        size: Int32[Array, "2"],
        first: Bool[Array, ""],
    ) -> FrameObjects:
        """Finds the objects of the next frame of one video.

        Args:
          features: features of the frame, B = 1.
          memory: memory of earlier frames; None without association.
          size: height and width of the content in pixels.
          first: whether it is the first frame.
        """
        said = self.say(features, memory)
        out = jax.tree.map(lambda x: x[0], said.out)
        objects = find_objects(
            out, said.places, size, first=first, cells=said.cells, rule=self.rule
        )
        return FrameObjects(objects, said.tokens)

    def look(
        self, images: Float32[Array, "B H W 3"], memory: FrameMemory | None
    ) -> Any:
        """Runs every part that has parameters, for initialisation."""
        said = self.say(self.stages(images), memory)
        if memory is None:
            return said.out
        _, height, width, _ = images.shape
        ids = jnp.broadcast_to(blank_map(height, width), images.shape[:3])
        real = jnp.ones(len(images), bool)
        hab = cast(HybridAssociation, self.hab)
        tokens = cast(Tokens, said.tokens)
        return said.out, hab.remember(memory, tokens, ids, new=~real, real=real)


def associate(
    hab: HybridAssociation | None,
    features: Stages,
    memory: FrameMemory | None,
    train: bool,
) -> tuple[Stages, Tokens | None]:
    """Returns features with one stage replaced by the association, and its tokens.

    Args:
      hab: the association block; None for none.
      features: features of the backbone.
      memory: one per video; None without association.
      train: enables drop path.
    """
    if hab is None or memory is None:
        return features, None
    stage = hab.settings.stage
    found, tokens = hab(features[stage], memory, train)
    return features | {stage: found}, tokens


def remember(
    hab: HybridAssociation,
    variables: dict,
    memory: FrameMemory,
    tokens: Tokens,
    ids: UInt8[Array, "B H W"],
    *,
    new: Bool[Array, "B"],
    real: Bool[Array, "B"],
) -> FrameMemory:
    """Returns the memory after a frame; see `HybridAssociation.remember`.

    Args:
      hab: the field `hab` of a model.
      variables: variables of the model.
      memory, tokens, ids, new, real: arguments of the method.
    """
    own = {"params": variables["params"]["hab"]}
    after = hab.apply(own, memory, tokens, ids, new=new, real=real, method="remember")
    return cast(FrameMemory, after)


def start_memory(
    hab: HybridAssociation | None, videos: int, canvas: tuple[int, int], *, slots: int
) -> FrameMemory | None:
    """Returns the memory before the first frame; None without association.

    Args:
      hab: the association.
      videos: B.
      canvas: height and width in pixels.
      slots: frames of the global memory.
    """
    if hab is None:
        return None
    height, width = (-(-side // hab.stride) for side in canvas)
    return empty_memory(
        hab.settings, videos, height, width, slots=slots, dtype=hab.dtype
    )


def build_association(
    settings: frame_memory.Settings,
    backbone: backbones.Settings,
    *,
    ids: int,
    dtype: jnp.dtype,
) -> HybridAssociation:
    """Builds the association block.

    Args:
      settings: settings of the block.
      backbone: the backbone whose stage it replaces.
      ids: N; 0 without identities: only object positions are remembered.
      dtype: compute dtype.
    """
    return HybridAssociation(
        settings,
        channels=backbones.stage_channels(backbone, settings.stage),
        id_channels=(ids or 1) + 1,
        stride=2 ** int(settings.stage[-1]),
        dtype=dtype,
    )


def build_model(settings: ModelSettings, rule: IdRule, dtype: jnp.dtype) -> Model:
    """Builds the network.

    Args:
      settings: `num_classes` must be that of the data.
      rule: turns locations into objects.
      dtype: compute dtype.

    Raises:
      ValueError: settings are inconsistent.
    """
    check_classes(settings.num_classes)
    ids, channels, hab = settings.ids, 0, None
    if ids.on:
        channels = ids.count + (ids.loss == "softmax")
    if settings.association:
        hab = build_association(
            settings.hab,
            settings.backbone,
            ids=ids.count if ids.on else 0,
            dtype=dtype,
        )
    return Model(
        backbone=backbones.build_backbone(settings.backbone, dtype),
        detector=build_modules(
            settings.fpn, settings.head, settings.masks,
            classes=settings.num_classes, dtype=dtype, ids=channels, id_convs=ids.convs,
        ),
        hab=hab,
        rule=rule,
        style=condinst_settings.pixel_style(settings.pixels, settings.backbone),
    )  # fmt: skip

"""Settings of VidEoMT, EoMT and their successors on a frozen encoder."""

from typing import Literal

from vis_jax.association.query_propagation import Kind
from vis_jax.backbones import vit
from vis_jax.losses.clip_queries import Settings as ClipLoss
from vis_jax.settings import Count, Natural, section
from vis_jax.systems.system import Dtype, TestSettings


@section
class MaskedAttention:
    """`model.masked_attention`: in training, queries attend only inside their mask.

    At test time, they attend to all patches.
    """

    # For each query block, in order, the update from which fewer queries are masked; ()
    # = no masked attention.
    start: tuple[Natural, ...] = ()
    end: tuple[Natural, ...] = ()  # the update from which none is

    def __post_init__(self) -> None:
        if len(self.start) != len(self.end):
            raise ValueError(
                f"end: expected as many updates as start, {len(self.start)}, got"
                f" {len(self.end)}"
            )
        if any(a > b for a, b in zip(self.start, self.end, strict=True)):
            raise ValueError(f"end: expected none before start, got {self.end}")


@section
class LastBlocks:
    """`model.decoder`: queries run through the last blocks of the backbone."""

    kind: Literal["backbone"] = "backbone"  # or own, with fields of its own
    blocks: Count = 4  # number of blocks


@section
class OwnBlocks:
    """`model.decoder`: queries run through blocks of their own (PMT, LVMT)."""

    kind: Literal["own"] = "own"  # or backbone, with fields of its own
    blocks: Count = 6  # number of blocks
    # Blocks of the backbone, from 0, whose tokens are summed.
    levels: tuple[Natural, ...] = (5, 11, 17, 23)

    def __post_init__(self) -> None:
        if not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels: expected ascending blocks, got {self.levels}")


@section
class ModelSettings:
    """`model`."""

    num_classes: Natural = 0  # 0 = as many as the data set has
    backbone: vit.Settings = vit.Settings()
    queries: Count = 200  # most instances per clip
    decoder: LastBlocks | OwnBlocks = LastBlocks()
    # Queries that enter the next frame. none: the learned queries, so that frames are
    # independent images; fusion: a linear layer of the queries, plus the learned ones;
    # gru: a gated unit.
    propagation: Kind = "fusion"
    # Initialisation of fusion's linear layer: like all new layers, or the identity.
    updater: Literal["random", "identity"] = "random"
    norm_queries: bool = False  # final norm before the propagation
    masked_attention: MaskedAttention = MaskedAttention()
    # Input on a canvas larger than the frame. content: the frame alone, padded to
    # multiples of 32 pixels; canvas: all of it, padding included.
    sees: Literal["content", "canvas"] = "content"
    remat: bool = True  # recompute frames in the backward pass: less memory

    def __post_init__(self) -> None:
        depth, blocks = vit.sizes_of(self.backbone).depth, self.decoder.blocks
        if isinstance(self.decoder, OwnBlocks):
            if self.decoder.levels[-1] >= depth:
                raise ValueError(
                    "decoder.levels: expected blocks of model.backbone, 0 .."
                    f" {depth - 1}, got {self.decoder.levels}"
                )
            if self.backbone.rescale != 1:
                raise ValueError(
                    "backbone.rescale: expected 1 with decoder.kind 'own', for which"
                    f" the backbone is not trained, got {self.backbone.rescale:g}"
                )
        elif blocks > depth:
            raise ValueError(
                f"decoder.blocks: expected at most the {depth} blocks of"
                f" model.backbone, got {blocks}"
            )
        if self.updater != "random" and self.propagation != "fusion":
            raise ValueError(
                "updater: expected 'random' with model.propagation"
                f" {self.propagation!r}, got {self.updater!r}"
            )
        starts = len(self.masked_attention.start)
        if starts not in (0, blocks):
            raise ValueError(
                f"masked_attention.start: expected an update for each of {blocks} query"
                f" blocks or (), got {starts}"
            )


@section
class LossSettings(ClipLoss):
    """`loss`."""

    # Make predictions before the query blocks after the final norm (EoMT), or from the
    # bare tokens (VidEoMT).
    aux_norm: bool = False
    aux_last: bool = False  # also train the prediction before the last block (EoMT)
    # Frames that gradients pass through; longer clips are cut into chunks of this
    # length, which share the loss. 0 = the whole clip.
    chunk: Natural = 0
    # An object keeps its query in later chunks; otherwise every chunk is matched anew.
    carry_matching: bool = True


@section
class VideoTestSettings(TestSettings):
    """`test`, with the class scores of tracks."""

    objects: Count = 20  # most masks per frame for `mode` clip
    # Frames over which class logits are averaged. all: all so far, as the authors do;
    # present: those in which the query is an object.
    score: Literal["all", "present"] = "all"
    least_frames: Natural = 0  # minimum frames in which a track is an object; 0 = any
    # Multiply a track's score by the mean probability of its mask's pixels (EoMT).
    quality: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quality and self.mode == "clip":
            raise ValueError("quality: expected False with test.mode 'clip', got True")


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: VideoTestSettings = VideoTestSettings()

"""What can be set of VidEoMT, EoMT and their successors on a frozen encoder."""

from typing import Literal

from vis_jax.association.query_propagation import Kind
from vis_jax.backbones import vit
from vis_jax.losses.clip_queries import Settings as ClipLoss
from vis_jax.settings import Count, Natural, section
from vis_jax.systems.system import Dtype, TestSettings


@section
class MaskedAttention:
    """`model.masked_attention`: in training, queries see the patches of their mask.

    At test time, they see all patches.
    """

    # For each query block, from the first on, the update from which on fewer queries
    # are limited; () = none ever is.
    start: tuple[Natural, ...] = ()
    end: tuple[Natural, ...] = ()  # the update from which on none is

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
    blocks: Count = 4  # how many


@section
class OwnBlocks:
    """`model.decoder`: queries run through blocks of their own (PMT, LVMT)."""

    kind: Literal["own"] = "own"  # or backbone, with fields of its own
    blocks: Count = 6  # how many
    # Blocks of the backbone, from 0, whose tokens are added up.
    levels: tuple[Natural, ...] = (5, 11, 17, 23)

    def __post_init__(self) -> None:
        if not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels: expected ascending blocks, got {self.levels}")


@section
class ModelSettings:
    """`model`."""

    num_classes: Natural = 0  # 0 = as many as the data set has
    backbone: vit.Settings = vit.Settings()
    queries: Count = 200  # most instances of a clip
    decoder: LastBlocks | OwnBlocks = LastBlocks()
    # What enters the next frame. none: the learned queries, so that frames are images;
    # fusion: a linear layer of the queries, plus the learned ones; gru: a gated unit.
    propagation: Kind = "fusion"
    # How the linear layer of fusion begins: as all new layers, or changing nothing.
    updater: Literal["random", "identity"] = "random"
    norm_queries: bool = False  # the final norm before the propagation
    masked_attention: MaskedAttention = MaskedAttention()
    # What a frame is on a larger canvas. content: as if alone, padded to multiples of
    # 32 pixels; canvas: all of it, padding included.
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

    # Predictions before the query blocks are made behind the final norm (EoMT), or of
    # the bare tokens (VidEoMT).
    aux_norm: bool = False
    aux_last: bool = False  # the prediction before the last block counts, too (EoMT)
    # Frames that gradients pass; a longer clip is cut into chunks of as many, which
    # share the loss. 0 = the whole clip.
    chunk: Natural = 0
    # An object keeps its query in later chunks; else every chunk is matched anew.
    carry_matching: bool = True


@section
class VideoTestSettings(TestSettings):
    """`test`, with how the class of a track is found."""

    objects: Count = 20  # most masks of a frame where `mode` is clip
    # What the class is the mean of. all: all frames so far, as the authors have it;
    # present: those in which the query is an object rather than none.
    score: Literal["all", "present"] = "all"
    least_frames: Natural = 0  # frames in which a track has to be an object; 0 = any
    # The score of a track times the mean probability of the pixels of its mask (EoMT).
    quality: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quality and self.mode == "clip":
            raise ValueError("quality: expected False with test.mode 'clip', got True")


@section
class Settings:
    """All that this system reads of a config."""

    compute_dtype: Dtype = "float32"  # of the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: VideoTestSettings = VideoTestSettings()

"""The hybrid association block of IAI: tokens attend to those of earlier frames.

Zhu et al., "Instance As Identity: A Generic Online Paradigm for Video Instance
Segmentation", ECCV 2022, section 3.3, and the released code, whose block is based on
Yang et al., "Associating Objects with Transformers for Video Object Segmentation",
NeurIPS 2021 (AOT). Letters: B videos, h w tokens of a frame, C channels per token, S
frames of the global memory.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.association.id_bank import IDBank
from vis_jax.layers.attention import (
    KeysValues,
    MultiHeadAttention,
    check_dim,
    weighted_values,
)
from vis_jax.layers.conv import Conv
from vis_jax.layers.gated_ffn import GatedFeedForward
from vis_jax.layers.local_attention import LocalAttention
from vis_jax.layers.mlp import DropPath, torch_uniform
from vis_jax.layers.norm import LayerNorm
from vis_jax.ops.pos_embed import sine_2d_from_zero
from vis_jax.settings import Count, Share, section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Int32, UInt8


@section
class Settings:
    """`model.hab`: the hybrid association block; the `use_` fields are table 5."""

    # Stage of the backbone that the block replaces; a small canvas has few tokens at
    # stride 32, that of res5.
    stage: Literal["res4", "res5"] = "res5"
    dim: Count = 256  # channels per token
    self_heads: Count = 4  # attention heads within a frame
    memory_heads: Count = 2  # heads of both attentions to earlier frames
    radius: Count = 7  # tokens; of the window in the previous frame
    mlp_dim: Count = 1024  # hidden channels of the feed-forward part
    drop_path: Share = 0.1  # probability, drawn per token of a batch
    use_local: bool = True  # attention to the previous frame
    use_global: bool = True  # attention to the first and further frames
    use_cls_projector: bool = True  # channels unaffected by memory
    # Frames between writes to the global memory; None: only the first is written.
    interval: Count | None = 3
    # At test time, frames with a new object also enter the global memory.
    on_new: bool = True
    # Frames of the global memory at test time; once full, the oldest but the first is
    # replaced. Deviation: the released code keeps all.
    slots: Count = 36

    def __post_init__(self) -> None:
        check_dim(self.dim, self.self_heads)
        if self.dim % self.memory_heads:
            raise ValueError(
                f"memory_heads: expected a divisor of dim, {self.dim}, got"
                f" {self.memory_heads}"
            )
        if not (self.use_local or self.use_global):
            raise ValueError(
                "use_global: expected True where use_local is False, as nothing else"
                " would associate frames, got False"
            )


class FrameMemory(NamedTuple):
    """Constant-size memory of a video's frames.

    `*B` is the video axis, absent for a single video.
    """

    global_keys: Float[Array, "*B S h w C"]
    global_values: Float[Array, "*B S h w C"]
    entered: Int32[Array, "*B"]  # frames written to the global memory
    local_keys: Float[Array, "*B h w C"]  # keys of the previous frame
    local_values: Float[Array, "*B h w C"]
    step: Int32[Array, "*B"]  # frames so far
    last: Int32[Array, "*B"]  # step of the last global write; initially 0


def empty_memory(
    settings: Settings,
    videos: int,
    height: int,
    width: int,
    *,
    slots: int,
    dtype: DTypeLike = jnp.float32,
) -> FrameMemory:
    """Returns an empty memory.

    Args:
      settings: settings of the block.
      videos: B.
      height, width: height and width of the token map.
      slots: S; `settings.slots` at test time, `training_slots` in training.
    """
    slots = slots if settings.use_global else 0
    local = jnp.zeros((videos, height, width, settings.dim), dtype)
    stored = jnp.zeros((videos, slots, height, width, settings.dim), dtype)
    zero = jnp.zeros((videos,), jnp.int32)
    return FrameMemory(stored, stored, zero, local, local, zero, zero)


def training_slots(frames: int, interval: int | None) -> int:
    """Returns the global-memory slots that the last of `frames` frames needs."""
    return 1 if interval is None else 1 + (frames - 1) // interval


def write(
    memory: FrameMemory,
    keys: Float[Array, "h w C"],
    values: Float[Array, "h w C"],
    *,
    new: Bool[Array, ""],
    real: Bool[Array, ""],
    interval: int | None,
) -> FrameMemory:
    """Returns the memory of one video after a frame.

    The frame replaces the previous one, and enters the global memory if it is the
    first, if `interval` frames have passed since the last one entered, or if it has a
    new object.

    Args:
      memory: memory of one video.
      keys, values: keys and values of the frame.
      new: the frame has a new object.
      real: False for padding, which leaves the memory unchanged.
      interval: see `Settings`.
    """
    step = memory.step + 1
    enters = new | (memory.entered == 0)
    if interval is not None:
        enters |= step - memory.last >= interval
    slots = len(memory.global_keys)
    ring = max(slots - 1, 1)  # slot 0 keeps the first frame
    slot = jnp.where(memory.entered == 0, 0, 1 + (memory.entered - 1) % ring)
    hit = (jnp.arange(slots) == slot) & enters & real
    hit = hit[:, None, None, None]
    # The first frame does not start the interval: at 3, frames 0, 2, 5, 8, .. enter.
    last = jnp.where(enters & (memory.step > 0), step, memory.last)
    return FrameMemory(
        jnp.where(hit, keys[None], memory.global_keys),
        jnp.where(hit, values[None], memory.global_values),
        memory.entered + (enters & real).astype(jnp.int32),
        jnp.where(real, keys, memory.local_keys),
        jnp.where(real, values, memory.local_values),
        jnp.where(real, step, memory.step),
        jnp.where(real, last, memory.last),
    )


class Tokens(NamedTuple):
    """Tokens of a frame to remember once its ids are known."""

    keys: Float[Array, "B h w C"]
    normed: Float[Array, "B h w C"]


class MemoryBlock(nn.Module):
    """AOT's block: self-attention, attention to memories, feed-forward.

    "Long short-term transformer", with one layer. Pre-norm, with a final norm.
    Positions are used only in the self-attention.
    """

    settings: Settings
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        settings, dim, dtype = self.settings, self.settings.dim, self.dtype
        init = nn.initializers.xavier_uniform()
        self.self_attention = MultiHeadAttention(
            dim, settings.self_heads, dtype, init, torch_uniform(dim)
        )

        def linear() -> nn.Dense:
            return nn.Dense(
                dim, dtype=dtype, kernel_init=init, bias_init=torch_uniform(dim)
            )

        self.key, self.value = linear(), linear()
        if settings.use_global:
            self.global_out = linear()
        if settings.use_local:
            self.local_attention = LocalAttention(
                dim, settings.memory_heads, settings.radius, dtype
            )
        self.ffn = GatedFeedForward(settings.mlp_dim, dtype=dtype)
        self.self_norm, self.memory_norm = LayerNorm(dtype), LayerNorm(dtype)
        self.ffn_norm, self.out_norm = LayerNorm(dtype), LayerNorm(dtype)
        # One draw per token, shared across videos and channels, as in the source.
        self.drop = DropPath(settings.drop_path, axes=(1, 2))

    def __call__(
        self,
        x: Float[Array, "B h w C"],
        memory: FrameMemory,
        unknown: Float[Array, "C"],
        train: bool,
    ) -> tuple[Float[Array, "B h w C"], Tokens]:
        """Returns the tokens after the block, and those to remember.

        Args:
          x: tokens.
          memory: one per video; the first frame attends to itself.
          unknown: id embedding of a frame with unknown ids, for the first frame.
          train: enables drop path.
        """
        x = x + self.drop(self._within(self.self_norm(x)), train)
        normed = self.memory_norm(x)
        tokens = Tokens(self.key(normed), normed)
        embeds = jnp.broadcast_to(unknown, normed.shape)
        memory = remember(
            memory,
            tokens.keys,
            self.values(normed, embeds),
            new=jnp.zeros_like(memory.step, bool),
            real=memory.step == 0,
            interval=None,
        )
        if self.settings.use_global:
            x = x + self._global(tokens.keys, memory)
        if self.settings.use_local:
            found = self.local_attention(
                tokens.keys, memory.local_keys, memory.local_values
            )
            x = x + self.drop(found, train)
        x = x + self.drop(self.ffn(self.ffn_norm(x)), train)
        return self.out_norm(x), tokens

    def values(
        self, normed: Float[Array, "B h w C"], embeds: Float[Array, "B h w C"]
    ) -> Float[Array, "B h w C"]:
        """Returns the values of a frame with the ids of its objects.

        Args:
          normed: see `Tokens`.
          embeds: embeddings of the ids.
        """
        return self.value(normed + embeds)

    def _within(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        _, height, width, dim = x.shape
        position = sine_2d_from_zero(height, width, dim).astype(self.dtype)
        flat, placed = (y.reshape(len(x), -1, dim) for y in (x, x + position[None]))
        return self.self_attention(placed, placed, flat).reshape(x.shape)

    def _global(
        self, queries: Float[Array, "B h w C"], memory: FrameMemory
    ) -> Float[Array, "B h w C"]:
        """Attends to all tokens of all frames in the global memory."""
        videos, height, width, dim = queries.shape
        heads, slots = self.settings.memory_heads, memory.global_keys.shape[1]
        shape = videos, -1, heads, dim // heads
        held = KeysValues(
            memory.global_keys.reshape(shape), memory.global_values.reshape(shape)
        )
        used = jnp.arange(slots)[None] < memory.entered[:, None]
        attend = jnp.repeat(used, height * width, axis=1)[:, None]
        attend = jnp.broadcast_to(
            attend, (videos, height * width, slots * height * width)
        )
        queries = queries.reshape(shape) * (dim // heads) ** -0.5
        found = weighted_values(queries, held, attend)
        return self.global_out(found.reshape(videos, height, width, dim))


def remember(
    memory: FrameMemory,
    keys: Float[Array, "B h w C"],
    values: Float[Array, "B h w C"],
    *,
    new: Bool[Array, "B"],
    real: Bool[Array, "B"],
    interval: int | None,
) -> FrameMemory:
    """Applies `write` to all videos."""

    def of_video(
        memory: FrameMemory,
        keys: Float[Array, "h w C"],
        values: Float[Array, "h w C"],
        new: Bool[Array, ""],
        real: Bool[Array, ""],
    ) -> FrameMemory:
        return write(memory, keys, values, new=new, real=real, interval=interval)

    return jax.vmap(of_video)(memory, keys, values, new, real)


class HybridAssociation(nn.Module):
    """Hybrid association block: enriches frame features with those of earlier frames.

    Called twice per frame: the block itself before detection, and `remember` once the
    masks are known (the ground truth in training).

    Attributes:
      settings: see the type.
      channels: channels of the stage.
      id_channels: channels of the ID bank: N + 1, or 2 for objects and background only.
      stride: stride of the stage in pixels.

    Raises:
      ValueError: the stage has too few channels for twice `dim` plus the class
        channels.
    """

    settings: Settings
    channels: int
    id_channels: int
    stride: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        settings, left = self.settings, self.channels - 2 * self.settings.dim
        if settings.use_cls_projector and left <= 0:
            raise ValueError(
                f"model.hab.dim: expected less than half of {self.channels}, the"
                f" channels of {settings.stage}, got {settings.dim}"
            )

        def project(features: int) -> Conv:
            init = torch_uniform(self.channels)
            return Conv(
                features,
                kernel=1,
                use_bias=True,
                kernel_init=init,
                bias_init=init,
                dtype=self.dtype,
            )

        self.encoder_projector = project(settings.dim)
        if settings.use_cls_projector:
            self.backbone_projector = project(left)
        self.block = MemoryBlock(settings, self.dtype)
        self.id_bank = IDBank(self.id_channels, settings.dim, self.stride, self.dtype)

    def __call__(
        self, features: Float[Array, "B h w D"], memory: FrameMemory, train: bool
    ) -> tuple[Float[Array, "B h w E"], Tokens]:
        """Returns features [projected, block, class] that replace those of the stage.

        With the same number of channels, or 2 C without the class projector.

        Args:
          features: features of the stage.
          memory: memory of earlier frames.
          train: enables drop path (rng stream 'drop_path').
        """
        projected = self.encoder_projector(features)
        found, tokens = self.block(projected, memory, self.id_bank.blank(), train)
        parts = [projected, found]
        if self.settings.use_cls_projector:
            parts.append(self.backbone_projector(features))
        return jnp.concatenate(parts, axis=-1), tokens

    def remember(
        self,
        memory: FrameMemory,
        tokens: Tokens,
        ids: UInt8[Array, "B H W"],
        *,
        new: Bool[Array, "B"],
        real: Bool[Array, "B"],
    ) -> FrameMemory:
        """Returns the memories after a frame.

        Deviation: in training, the source reruns the block on the first frame for the
        memory, with new drop path draws; otherwise the two are equal.

        Args:
          memory: the one the frame has read.
          tokens: tokens of the frame.
          ids: its id map; see `identity.truth_map` and `identity.detection_map`.
          new: the frame has new objects; all False in training, as in the source.
          real: False marks padded frames, which change nothing.
        """
        values = self.block.values(tokens.normed, self.id_bank(ids))
        new = new & self.settings.on_new
        interval = self.settings.interval
        return remember(
            memory, tokens.keys, values, new=new, real=real, interval=interval
        )

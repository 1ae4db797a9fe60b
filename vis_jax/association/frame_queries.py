"""Inter-frame recurrent attention: frame queries derive from those of earlier frames.

You et al., "Consistent Video Instance Segmentation with Inter-Frame Recurrent
Attention", 2022, section 3. Clip-level queries carry the class; frame-level queries,
rebuilt in every layer by a recurrence over frames, carry the mask of their frame.
Letters: S tokens of one level in one frame.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from vis_jax.layers.attention import KeysValues, MultiHeadAttention, check_dim
from vis_jax.layers.mlp import FeedForward
from vis_jax.layers.norm import LayerNorm
from vis_jax.layers.queries import (
    ClipFeatures,
    DecoderOutput,
    DecoderSettings,
    QueryHeads,
    QueryTables,
    add_level,
    foreground,
    resized_features,
)
from vis_jax.ops.pos_embed import sine_1d, sine_2d
from vis_jax.settings import section
from vis_jax.typing import Array, Bool, DTypeLike, Float


@section
class Settings(DecoderSettings):
    """`model.mask_decoder` of IFR: queries pass from frame to frame."""

    kind: Literal["ifr"] = "ifr"  # or m2f_vis, with fields of its own
    frame_ffn: bool = True  # end each step of the recurrence with a feed-forward layer
    type_embed: bool = False  # add a learned vector to the keys of each query group
    mask_clip_group: bool = True  # clip-level queries, too, attend inside their mask
    temporal_position: bool = False  # add frame positions to the clip update's keys
    remat: bool = False  # recompute steps in the backward pass: less memory

    def __post_init__(self) -> None:
        check_dim(self.dim, self.heads)


class FrameRecurrence(nn.Module):
    """Frame-level queries of one layer (Eq. 2 and 3 of the paper).

    Attributes:
      frame_ffn: end each step of the recurrence with a feed-forward layer.
      type_embed: add a learned vector to the keys of each query group.
      mask_clip_group: clip-level queries also attend only inside their mask.
      remat: recompute each step in the backward pass; saves memory for long clips.
    """

    dim: int
    heads: int
    mlp_dim: int
    frame_ffn: bool
    type_embed: bool
    mask_clip_group: bool
    remat: bool
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.cross_attention = MultiHeadAttention(self.dim, self.heads, self.dtype)
        self.self_attention = MultiHeadAttention(self.dim, self.heads, self.dtype)
        self.cross_norm = LayerNorm(self.dtype)
        self.self_norm = LayerNorm(self.dtype)
        if self.frame_ffn:
            self.ffn = FeedForward(self.mlp_dim, self.dtype)
            self.ffn_norm = LayerNorm(self.dtype)
        if self.type_embed:
            self.group = self.param("group", nn.initializers.zeros, (2, self.dim))

    def __call__(
        self,
        queries: Float[Array, "B Q C"],
        position: Float[Array, "Q C"],
        keys: Float[Array, "B T S C"],
        values: Float[Array, "B T S C"],
        attend: Bool[Array, "B T Q S"],
    ) -> Float[Array, "B T Q C"]:
        """Returns the frame-level queries of all frames, first to last.

        Args:
          queries: clip-level queries of this layer.
          position: embedding of the query slots.
          keys, values: pixel tokens of every frame, with and without position
            embeddings.
          attend: where each frame's queries may attend.
        """
        batch, frames = keys.shape[:2]
        memory = self.cross_attention.project(keys, values)
        # The clip-level group is independent of the recurrence: all frames at once.
        clip = jnp.broadcast_to(queries[:, None], (batch, frames, *queries.shape[1:]))
        inside = attend if self.mask_clip_group else None
        clip = self._cross(clip, position[None, None], memory, inside)
        clip_memory = self.self_attention.project(
            clip + self._key_position(position, 1)[None, None], clip
        )
        given = (*memory, *clip_memory, attend)
        xs = tuple(jnp.moveaxis(x, 1, 0) for x in given)
        step = FrameRecurrence.step
        step = nn.remat(step, prevent_cse=False) if self.remat else step
        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        _, out = scan(self, (queries, position), xs)
        return jnp.moveaxis(out, 0, 1)

    def step(
        self,
        carry: tuple[Float[Array, "B Q C"], Float[Array, "Q C"]],
        x: tuple[Float[Array, "B _ heads d"] | Bool[Array, "B Q S"], ...],
    ) -> tuple[
        tuple[Float[Array, "B Q C"], Float[Array, "Q C"]], Float[Array, "B Q C"]
    ]:
        """Returns the next frame's frame-level queries; the other group is skipped."""
        before, position = carry
        keys, values, clip_keys, clip_values, attend = x
        memory = KeysValues(keys, values)
        own = self._cross(before, position[None], memory, attend)
        own_keys, own_values = self.self_attention.project(
            own + self._key_position(position, 0)[None], own
        )
        both = KeysValues(
            jnp.concatenate([own_keys, clip_keys], axis=1),
            jnp.concatenate([own_values, clip_values], axis=1),
        )
        seen = self.self_attention.look(own + position[None], both)
        out = self.self_norm(own + seen)
        if self.frame_ffn:
            out = self.ffn_norm(out + self.ffn(out))
        return (out, position), out

    def _cross(
        self,
        queries: Float[Array, "*lead Q C"],
        position: Float[Array, "*ones Q C"],
        memory: KeysValues,
        attend: Bool[Array, "*lead Q S"] | None,
    ) -> Float[Array, "*lead Q C"]:
        """Attends from queries to pixels; both groups share the weights."""
        seen = self.cross_attention.look(queries + position, memory, attend)
        return self.cross_norm(queries + seen)

    def _key_position(
        self, position: Float[Array, "Q C"], group: int
    ) -> Float[Array, "Q C"]:
        """Returns the key position of group 0 (frame-level) or 1 (clip-level)."""
        if not self.type_embed:
            return position
        return position + self.group[group].astype(self.dtype)[None]


class ClipUpdate(nn.Module):
    """Clip-level queries attend to the frame-level queries of all frames.

    Attributes:
      temporal_position: add the sine embedding of the frame to keys.
    """

    dim: int
    heads: int
    mlp_dim: int
    temporal_position: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B Q C"],
        position: Float[Array, "Q C"],
        frame_queries: Float[Array, "B T Q C"],
        frame_valid: Bool[Array, "B T"],
    ) -> Float[Array, "B Q C"]:
        """Returns the clip-level queries of the next layer."""
        batch, frames, count, dim = frame_queries.shape
        keys = frame_queries + position[None, None]
        position = position[None]
        if self.temporal_position:
            extent = frame_valid.sum(axis=1).astype(jnp.float32)
            time = sine_1d(frames, dim, extent)[:, :, None]
            keys = keys + time.astype(keys.dtype)
        attend = jnp.repeat(frame_valid, count, axis=1)[:, None]
        attend = jnp.broadcast_to(attend, (batch, count, frames * count))

        def attention(name: str) -> MultiHeadAttention:
            return MultiHeadAttention(self.dim, self.heads, self.dtype, name=name)

        def norm(name: str, x: Float[Array, "B Q C"]) -> Float[Array, "B Q C"]:
            return LayerNorm(self.dtype, name=name)(x)

        seen = attention("temporal_attention")(
            queries + position,
            keys.reshape(batch, -1, dim),
            frame_queries.reshape(batch, -1, dim),
            attend,
        )
        u = norm("temporal_norm", queries + seen)
        seen = attention("self_attention")(u + position, u + position, u)
        u = norm("self_norm", u + seen)
        feed = FeedForward(self.mlp_dim, self.dtype, name="ffn")
        return norm("ffn_norm", u + feed(u))


class FrameDecoder(nn.Module):
    """The IFR decoder: `layers` rounds of frame recurrence and clip update."""

    dim: int
    heads: int
    layers: int
    queries: int
    mlp_dim: int
    outputs: int
    prior: float | None
    frame_ffn: bool
    type_embed: bool
    mask_clip_group: bool
    temporal_position: bool
    remat: bool
    mask_dim: int | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: ClipFeatures, frame_valid: Bool[Array, "B T"]
    ) -> DecoderOutput:
        """Returns predictions of every layer.

        Args:
          features: features of all frames of each clip.
          frame_valid: False marks padding, which must follow the real frames.
        """
        levels = len(features.levels)
        tables = QueryTables(self.queries, self.dim, levels, name="tables")
        query_feat, query_embed, level_embed = tables()
        heads = QueryHeads(
            self.dim, self.outputs, self.prior, self.dtype, self.mask_dim, name="heads"
        )
        batch, frames = frame_valid.shape
        fine = resized_features(features)
        position = query_embed.astype(self.dtype)
        x = jnp.broadcast_to(query_feat, (batch, *query_feat.shape)).astype(self.dtype)
        # Before the first layer queries are not per frame: one mask embedding for all.
        classes = [heads.classify(x)]
        embeds = [jnp.repeat(heads.embed(x)[:, None], frames, axis=1)]
        for index in range(self.layers):
            level = index % levels
            tokens = add_level(features.levels[level], level_embed[level])
            height, width = tokens.shape[2:4]
            where = sine_2d(height, width, self.dim).astype(self.dtype)[None, None]
            inside = foreground(embeds[-1], fine[level])
            frame_queries = self._recurrence(index)(
                x,
                position,
                (tokens + where).reshape(batch, frames, -1, self.dim),
                tokens.reshape(batch, frames, -1, self.dim),
                inside | ~inside.any(axis=-1, keepdims=True),
            )
            x = self._clip_update(index)(x, position, frame_queries, frame_valid)
            classes.append(heads.classify(x))
            embeds.append(heads.embed(frame_queries))
        return DecoderOutput(jnp.stack(classes), jnp.stack(embeds))

    def _recurrence(self, index: int) -> FrameRecurrence:
        return FrameRecurrence(
            self.dim,
            self.heads,
            self.mlp_dim,
            self.frame_ffn,
            self.type_embed,
            self.mask_clip_group,
            self.remat,
            self.dtype,
            name=f"frame_{index}",
        )

    def _clip_update(self, index: int) -> ClipUpdate:
        return ClipUpdate(
            self.dim,
            self.heads,
            self.mlp_dim,
            self.temporal_position,
            self.dtype,
            name=f"clip_{index}",
        )

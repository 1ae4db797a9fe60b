"""The network of VidEoMT and EoMT: a plain transformer whose last blocks take queries.

With a decoder of its own (`model.decoder.kind` "own"), that of PMT and LVMT. Letters: N
images, S tokens of an image without queries, P patches, Q queries, C channels, L query
blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.association.query_propagation import QueryPropagation
from vis_jax.backbones import vit
from vis_jax.backbones.vit import ViT, rotary_of
from vis_jax.detectors.eomt import (
    Heads,
    QueryPredictions,
    attend_content,
    attend_inside,
    doublings,
)
from vis_jax.detectors.plain_mask_decoder import PlainMaskDecoder
from vis_jax.ops.rotary import Rotary
from vis_jax.systems.system import check_classes
from vis_jax.systems.videomt_settings import OwnBlocks, Settings
from vis_jax.typing import Array, Bool, Float, Float32, Int32

Grid = tuple[int, int]  # patches of a frame by rows and columns
# Patches that are not padding (rows, columns), at the top left; None = all.
Content = Int32[Array, "N 2"] | None
Scale = Float32[Array, ""] | None  # scale of rotary positions in training; None = 1

_ALIGNED = 32  # pixels, about: frames are padded to multiples of this


class Looked(NamedTuple):
    """Output of the query blocks for one frame of N videos."""

    queries: Float32[Array, "N Q C"]  # before the final norm
    patches: Float32[Array, "N P C"]  # before the final norm
    early: tuple[QueryPredictions, ...]  # predictions before some of the blocks


class Model(nn.Module):
    """Encoder, query blocks and heads; `look` takes one frame at a time.

    Attributes:
      backbone, heads, propagation: its parts.
      queries: number of queries.
      query_blocks: number of blocks that queries run through: the last of the backbone,
        or the decoder's.
      decoder: on top of the backbone; None: queries run through the backbone.
      levels: backbone blocks whose tokens the decoder sums.
      norm_queries: apply the final norm to queries passed to the next frame, and to
        early predictions.
      early_norm: early predictions are made after the final norm.
    """

    backbone: ViT
    heads: Heads
    propagation: QueryPropagation
    queries: int
    query_blocks: int
    decoder: PlainMaskDecoder | None = None
    levels: tuple[int, ...] = ()
    norm_queries: bool = False
    early_norm: bool = False

    def setup(self) -> None:
        shape = (self.queries, self.backbone.sizes.dim)
        self.query = self.param("query", nn.initializers.normal(1.0), shape)

    @property
    def first_block(self) -> int:
        """Index of the first block with queries; 0 with a decoder of its own."""
        if self.decoder is not None:
            return 0
        return self.backbone.sizes.depth - self.query_blocks

    def encode(
        self,
        images: Float[Array, "N H W 3"],
        train: bool = False,
        valid: Bool[Array, "N"] | None = None,
        content: Content = None,
        scale: Scale = None,
    ) -> Float32[Array, "N S C"]:
        """Returns each frame's tokens for the query blocks; frames do not interact.

        Args:
          images: normalised.
          train: train mode of a decoder's batch norm; 'batch_stats' must be mutable
            then.
          valid: images that count in its statistics; None = all. Padding never counts.
          content: patches that are not padding (rows, columns); None = all.
          scale: scale of rotary positions.
        """
        if self.decoder is None:
            blocks = (range(self.first_block),)
            return self._run_backbone(images, blocks, content, scale)[0]
        grid = self.backbone.grid(*images.shape[1:3])
        levels = self.encode_levels(images, content, scale)
        return self.fuse(levels, grid, train, valid, content)

    def encode_levels(
        self,
        images: Float[Array, "N H W 3"],
        content: Content = None,
        scale: Scale = None,
    ) -> Float32[Array, "N L S C"]:
        """Returns the tokens that a decoder of its own sums: all of the backbone.

        Args:
          images, content, scale: see `encode`.
        """
        begins = (0, *(level + 1 for level in self.levels[:-1]))
        blocks = tuple(
            range(begin, level + 1)
            for begin, level in zip(begins, self.levels, strict=True)
        )
        found = self._run_backbone(images, blocks, content, scale)
        return jnp.stack([self.backbone.norm(tokens) for tokens in found], axis=1)

    def fuse(
        self,
        levels: Float32[Array, "N L S C"],
        grid: Grid,
        train: bool = False,
        valid: Bool[Array, "N"] | None = None,
        content: Content = None,
    ) -> Float32[Array, "N S C"]:
        """Returns each frame's tokens for the query blocks of a decoder of its own.

        Args:
          levels: from `encode_levels`.
          grid: patches of the frames.
          train, valid, content: see `encode`.
        """
        if self.decoder is None:
            raise ValueError("model.decoder.kind: expected 'own', got 'backbone'")
        counted = jnp.ones((len(levels), levels.shape[2]), bool)
        if valid is not None:
            counted &= valid[:, None]
        if content is not None:
            counted &= attend_content(content, grid, self.backbone.prefix)[:, 0]
        parts = [levels[:, index] for index in range(len(self.levels))]
        return self.decoder.fuse(parts, train, counted)

    def _run_backbone(
        self,
        images: Float[Array, "N H W 3"],
        parts: Sequence[range],
        content: Content,
        scale: Scale,
    ) -> list[Float32[Array, "N S C"]]:
        """Returns the tokens after each of some parts of the blocks, in order."""
        backbone = self.backbone
        grid = backbone.grid(*images.shape[1:3])
        rotary, attend = backbone.rotary(grid, content, scale), None
        if content is not None:
            attend = attend_content(content, grid, backbone.prefix)
        tokens, found = backbone.embed(images, content), []
        for blocks in parts:
            tokens = backbone.run(tokens, blocks, rotary, attend)
            found.append(tokens)
        return found

    def first(self, count: int) -> Float32[Array, "N Q C"]:
        """Returns the queries that enter the first frame of `count` videos."""
        return jnp.broadcast_to(self.query[None], (count, *self.query.shape))

    def look(
        self,
        queries: Float32[Array, "N Q C"],
        tokens: Float32[Array, "N S C"],
        grid: Grid,
        early: Sequence[int] = (),
        masked: Bool[Array, "N L Q"] | None = None,
        content: Content = None,
        scale: Scale = None,
    ) -> Looked:
        """Runs the query blocks on one frame of N videos.

        Args:
          queries: queries that enter this frame.
          tokens: from `encode`.
          grid: patches of the frame.
          early: query blocks, from 0, before which a prediction is made.
          masked: for each query block, the queries that attend only to patches inside
            their mask; None = no masking.
          content, scale: see `encode`.
        """
        x = jnp.concatenate([queries, tokens], axis=1)
        rotary, real = self._rotary(grid, content, scale), None
        if content is not None:
            real = attend_content(content, grid, self._front)
        run = self.backbone.run if self.decoder is None else self.decoder.run
        predictions = []
        for index in range(self.query_blocks):
            attend, found = real, None
            if index in early:
                found = self._early(x, grid, content)
                predictions.append(found)
            if masked is not None:
                if found is None or not self._norms_early:
                    found = self._predict(self.norm(x), grid, content)
                masks = jax.lax.stop_gradient(found.mask_logits)
                prefix = self.backbone.prefix
                attend = attend_inside(masks, masked[:, index], grid, prefix)
                attend = attend if real is None else attend & real
            block = self.first_block + index
            x = run(x, range(block, block + 1), rotary, attend)
        found_queries, patches = self._split(x)
        return Looked(found_queries, patches, tuple(predictions))

    def norm(self, x: Float32[Array, "N A C"]) -> Float32[Array, "N A C"]:
        """Applies the final norm, after the query blocks."""
        return self.backbone.norm(x) if self.decoder is None else self.decoder.norm(x)

    def classify(self, looked: Looked) -> Float32[Array, "N Q K1"]:
        """Returns class logits of the final prediction."""
        return self.heads.classify(self.norm(looked.queries))

    def masks(
        self, looked: Looked, grid: Grid, content: Content = None
    ) -> Float32[Array, "N Q H W"]:
        """Returns mask logits of the final prediction, for the queries in `looked`."""
        queries, patches = self.norm(looked.queries), self.norm(looked.patches)
        return self.heads.masks(queries, patches, grid, content)

    def carry(
        self, looked: Looked, entered: Float32[Array, "N Q C"]
    ) -> Float32[Array, "N Q C"]:
        """Returns the queries that enter the next frame.

        Args:
          looked: output for this frame.
          entered: queries that entered it.
        """
        found = self.norm(looked.queries) if self.norm_queries else looked.queries
        return self.propagation(found, entered, self.query)

    def __call__(self, images: Float[Array, "N H W 3"]) -> QueryPredictions:
        """Returns the final predictions of single images; reaches every parameter."""
        grid = self.backbone.grid(*images.shape[1:3])
        queries = self.first(len(images))
        looked = self.look(queries, self.encode(images), grid)
        self.carry(looked, queries)
        return QueryPredictions(self.classify(looked), self.masks(looked, grid))

    @property
    def _front(self) -> int:
        """Number of tokens before the patches, in blocks that include the queries."""
        return self.queries + self.backbone.prefix

    def _rotary(self, grid: Grid, content: Content, scale: Scale) -> Rotary | None:
        """Returns rotary positions for the query blocks."""
        if self.decoder is None:
            return self.backbone.rotary(grid, content, scale)
        return rotary_of(self.backbone.sizes, grid, content)

    @property
    def _norms_early(self) -> bool:
        return self.early_norm or self.norm_queries

    def _early(
        self, x: Float32[Array, "N A C"], grid: Grid, content: Content
    ) -> QueryPredictions:
        x = self.norm(x) if self._norms_early else x
        return self._predict(x, grid, content)

    def _predict(
        self, x: Float32[Array, "N A C"], grid: Grid, content: Content
    ) -> QueryPredictions:
        return self.heads(*self._split(x), grid, content)

    def _split(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Splits tokens into queries and patches."""
        return x[:, : self.queries], x[:, self._front :]


def build_model(settings: Settings) -> Model:
    """Builds the network.

    Raises:
      ValueError: the number of classes is unknown.
    """
    model, dtype = settings.model, jnp.dtype(settings.compute_dtype)
    check_classes(model.num_classes)
    own = model.decoder if isinstance(model.decoder, OwnBlocks) else None
    dim, _, heads = vit.sizes_of(model.backbone)
    decoder = None
    if own is not None:
        count = len(own.levels)
        decoder = PlainMaskDecoder(dim, heads, count, own.blocks, dtype)
    return Model(
        backbone=vit.build(model.backbone, dtype),
        heads=Heads(model.num_classes + 1, doublings(model.backbone.patch), dtype),
        propagation=QueryPropagation(model.propagation, model.updater == "identity"),
        queries=model.queries,
        query_blocks=model.decoder.blocks,
        decoder=decoder,
        levels=own.levels if own else (),
        norm_queries=model.norm_queries,
        early_norm=settings.loss.aux_norm,
    )


def call(model: Model, variables: dict, method: Callable, *args: Any) -> Any:
    """Calls a method of the network; no statistics are updated.

    Args:
      model, variables: the network.
      method: a method of `Model`.
      *args: its arguments.
    """
    return model.apply(variables, *args, method=method)


def alignment(patch: int) -> int:
    """Returns the pixels to whose multiples frames are padded.

    32 as by the authors, or the next smaller multiple of the patch: 28 for 14.

    Args:
      patch: side of a patch in pixels.
    """
    return patch * max(1, _ALIGNED // patch)


def content_of(settings: Settings, sizes: Int32[Array, "N 2"], grid: Grid) -> Content:
    """Returns the patches that each of N frames sees (rows, columns); None = all.

    Args:
      settings: settings of the system.
      sizes: height and width of the content in pixels.
      grid: patches of the canvas.
    """
    if settings.model.sees == "canvas":
        return None
    patch = settings.model.backbone.patch
    aligned = alignment(patch)
    seen = -(-sizes // aligned) * (aligned // patch)
    return jnp.minimum(seen, jnp.array(grid, jnp.int32)[None])

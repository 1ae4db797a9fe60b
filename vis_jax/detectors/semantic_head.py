"""Semantic branch of Hybrid Task Cascade: per-cell semantic segmentation.

Chen et al., "Hybrid task cascade for instance segmentation", CVPR 2019, section 3.3.
Letters: h w cells of the map, of stride 8; S semantic classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.conv import Conv
from vis_jax.ops.bilinear import resize_corners, resize_nearest
from vis_jax.settings import Count, Natural, section
from vis_jax.typing import Array, Bool, DTypeLike, Float, Float32, Int32

STRIDE = 8  # pixels of a cell
IGNORED = 255  # label of cells that are not trained
_PLACE = 1  # index among 'p2' .. 'p6' of the level with the map's size


@section
class Settings:
    """`model.semantic`."""

    enabled: bool = True  # False: RoI features come from the pyramid alone
    # 0 = the data set's classes and the background; 183 for COCO-stuff.
    classes: Natural = 0
    dim: Count = 256  # channels of the hidden layers
    convs: Count = 4  # 3x3 convolutions after the levels are summed


class SemanticHead(nn.Module):
    """All levels resized to 'p3' and summed, then logits and features for regions.

    Attributes:
      classes: S.
      dim, convs: see `Settings`.
      channels: channels of the RoI features that the embedding is added to.
    """

    classes: int
    dim: int
    convs: int
    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, levels: tuple[Float[Array, "B _ _ C"], ...]
    ) -> tuple[Float32[Array, "B h w S"], Float[Array, "B h w D"]]:
        """Returns the logits of every cell and the embedding, both at the size of 'p3'.

        Args:
          levels: 'p2' .. 'p6'.
        """

        def conv(x: Array, dim: int, kernel: int, name: str) -> Array:
            conv = Conv(dim, kernel, use_bias=True, dtype=self.dtype, name=name)
            return nn.relu(conv(x))

        height, width = levels[_PLACE].shape[1:3]
        resized = [resize_corners(level, (height, width)) for level in levels]
        x = conv(resized[0], self.dim, 1, "lateral2")
        for number, level in enumerate(resized[1:], start=3):
            x = x + conv(level, self.dim, 1, f"lateral{number}")
        for index in range(1, self.convs + 1):
            x = conv(x, self.dim, 3, f"conv{index}")
        logits = Conv(
            self.classes, 1, use_bias=True, dtype=self.dtype, name="class_logits"
        )
        embedding = conv(x, self.channels, 1, "embedding")
        return logits(x).astype(jnp.float32), embedding


def build(
    settings: Settings, num_classes: int, channels: int, dtype: jnp.dtype
) -> SemanticHead | None:
    """Builds the branch of a config; None if not enabled.

    Args:
      settings: settings of the branch.
      num_classes: K.
      channels: channels of the RoI features.
      dtype: compute dtype.
    """
    if not settings.enabled:
        return None
    classes = settings.classes or num_classes + 1
    return SemanticHead(classes, settings.dim, settings.convs, channels, dtype)


def semantic_loss(
    class_logits: Float32[Array, "B h w S"], labels: Int32[Array, "B h w"]
) -> Float32[Array, ""]:
    """Returns the cross-entropy averaged over all cells that are not ignored.

    Args:
      class_logits: class logits of every cell.
      labels: 0 .. S - 1; cells with `IGNORED` are left out. 0 if no cell is left.
    """
    counted = labels != IGNORED
    index = jnp.where(counted, labels, 0)[..., None]
    log_probs = jax.nn.log_softmax(class_logits)
    chosen = jnp.take_along_axis(log_probs, index, axis=-1)[..., 0]
    count = jnp.maximum(counted.sum(), 1).astype(jnp.float32)
    return -jnp.where(counted, chosen, 0.0).sum() / count


def semantic_labels(
    masks: Bool[Array, "M H W"],
    labels: Int32[Array, "M"],
    valid: Bool[Array, "M"],
    *,
    size: Int32[Array, "2"],
    num_classes: int,
) -> Int32[Array, "h w"]:
    """Returns semantic labels of an image's cells, drawn from its objects alone.

    Objects have their classes, smaller ones on top; everything else is background,
    class K. A cell takes the label of its top-left pixel, as "nearest" in the source.

    Args:
      masks: masks of the ground-truth objects, in canvas pixels.
      labels: 0 .. K - 1.
      valid: False marks padded objects.
      size: height and width of the content; cells beyond it are ignored.
      num_classes: K.
    """
    height, width = masks.shape[1:]
    cells = (height // STRIDE, width // STRIDE)
    area = jnp.where(valid, masks.sum(axis=(1, 2)), 0)
    shown = resize_nearest(masks[..., None], cells)[..., 0] & valid[:, None, None]
    # The smallest object that covers a cell, the first on ties.
    rank = jnp.argsort(jnp.argsort(area, stable=True), stable=True)
    order = jnp.where(shown, rank[:, None, None], len(labels))
    top = order.argmin(axis=0)
    label = jnp.where(shown.any(axis=0), labels[top], num_classes)
    rows, columns = (STRIDE * jnp.arange(n, dtype=jnp.int32) for n in cells)
    inside = (rows < size[0])[:, None] & (columns < size[1])[None]
    return jnp.where(inside, label, IGNORED).astype(jnp.int32)

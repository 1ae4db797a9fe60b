"""A track head for CondInst: an embedding at each location.

CondInst with this head is the baseline in IAI, Zhu et al., "Instance as identity", ECCV
2022, Table 6 ("CondInst, Track"), which does not describe the head. As locations stand
for objects, the head here is a tower beside those of classes and boxes, trained on
positive locations with the match loss of Yang et al., "Video Instance Segmentation",
ICCV 2019, Eq. 2. Letters: B clips, I images, M ground-truth objects, P locations, N
boxes, E embedding channels, D channels.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.detectors.fcos import STRIDES, Cells, Levels, Tower
from vis_jax.detectors.frame_pair import Roles, frames_at
from vis_jax.layers.conv import Conv
from vis_jax.losses.fcos import DenseTargets
from vis_jax.losses.identity import track_loss
from vis_jax.ops.sampling import sample_positives
from vis_jax.settings import Natural, section
from vis_jax.typing import (
    Array,
    Bool,
    DTypeLike,
    Float,
    Float32,
    Int32,
    PRNGKeyArray,
)

_NORMAL = nn.initializers.normal(0.01)


@section
class TrackSettings:
    """`model.track_head`."""

    width: Natural = 0  # embedding channels; 0 = no track head; 256 at full size


class TrackMap(nn.Module):
    """Embeddings of all locations, compared by dot product.

    Attributes:
      dim: channels of the tower.
      width: E.
    """

    dim: int
    width: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.tower = Tower(self.dim, 1, self.dtype)
        self.embeds = Conv(
            self.width, 3, use_bias=True, kernel_init=_NORMAL, dtype=self.dtype
        )

    def __call__(self, levels: Levels) -> Float32[Array, "I P E"]:
        """Returns the embeddings, finest level first."""

        def flat(x: Float[Array, "I h w D"]) -> Float32[Array, "I hw E"]:
            embeds = self.embeds(self.tower(x)).astype(jnp.float32)
            return embeds.reshape(len(x), -1, self.width)

        return jnp.concatenate([flat(x) for x in levels], axis=1)


def place_of(
    boxes: Float32[Array, "N 4"], cells: Cells, *, ranges: tuple[float, ...]
) -> Int32[Array, "N"]:
    """Returns the location of a box: at its centre, on the level for its size.

    Args:
      boxes: in pixels.
      cells: height and width of every level.
      ranges: see `TargetRule`.
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 2
    level = jnp.searchsorted(jnp.array(ranges, jnp.float32), longest)
    counts = jnp.array([height * width for height, width in cells])
    size = jnp.array(cells)[level]
    stride = jnp.array(STRIDES, jnp.float32)[level][:, None]
    x, y = (middle // stride).astype(jnp.int32).T
    x = jnp.clip(x, 0, size[:, 1] - 1)
    y = jnp.clip(y, 0, size[:, 0] - 1)
    start = (jnp.cumsum(counts) - counts)[level]
    return (start + y * size[:, 1] + x).astype(jnp.int32)


class _Reference(NamedTuple):
    """Embeddings of the objects in the reference frame."""

    embeds: Float32[Array, "M E"]
    found: Bool[Array, "M"]  # whether a location is assigned to it


def _reference_of(
    embeds: Float32[Array, "P E"], targets: DenseTargets, *, objects: int
) -> _Reference:
    """Returns the mean embedding of the locations assigned to each object."""
    slots = jnp.arange(objects)[:, None]
    own = (targets.truth[None] == slots) & targets.positive[None]
    own = own.astype(jnp.float32)
    total = own.sum(axis=1)
    mean = jnp.matmul(own, embeds, precision=jax.lax.Precision.HIGHEST)
    return _Reference(mean / jnp.maximum(total, 1.0)[:, None], total > 0)


def place_loss(
    rng: PRNGKeyArray,
    embeds: Float32[Array, "I P E"],
    targets: DenseTargets,
    present: Bool[Array, "I M"],
    *,
    roles: Roles,
    most: int,
) -> Float32[Array, ""]:
    """Returns the loss of assigning key locations to objects of the reference frame.

    Locations whose object is in the reference frame but has no location there, e.g.
    with its centre occluded, are ignored.

    Args:
      rng: key for sampling locations if there are more than `most`.
      embeds: embeddings of all frames of B clips.
      targets: targets of all frames, with leading axis I.
      present: objects in each frame.
      roles: key and reference frame of each clip.
      most: most locations per key frame.
    """
    key, other = (frames_at((embeds, targets), x) for x in roles)
    one = functools.partial(_reference_of, objects=present.shape[1])
    reference = jax.vmap(one)(*other)
    there = frames_at(present, roles.reference)
    sample = functools.partial(sample_positives, most=most)
    subset = jax.vmap(sample)(jax.random.split(rng, len(there)), key[1].positive)
    truth = jnp.take_along_axis(key[1].truth, subset.chosen, axis=1)
    known = jnp.take_along_axis(reference.found | ~there, truth, axis=1)
    chosen = jnp.take_along_axis(key[0], subset.chosen[..., None], axis=1)
    return track_loss(
        chosen,
        reference.embeds,
        truth,
        counted=subset.counted & known,
        present=there & reference.found,
    )

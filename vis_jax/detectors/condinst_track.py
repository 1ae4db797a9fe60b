"""A track head on CondInst: an embedding for each location.

With it CondInst is the control of IAI, Zhu et al., "Instance as identity", ECCV 2022,
Table 6 ("CondInst, Track"), which does not describe its head. As here locations stand
for objects, the head is a tower beside those of classes and boxes, and the match loss
of Yang et al., "Video Instance Segmentation", ICCV 2019, Eq. 2, compares positive
locations. Letters: B clips, I images, M true objects, P locations, N boxes, E numbers
of an embedding, D channels.
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

    width: Natural = 0  # of the embedding; 0 = no track head; 256 at full size


class TrackMap(nn.Module):
    """Embeddings of all locations, to be compared by dot products.

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
        """The embeddings, finest level first."""

        def flat(x: Float[Array, "I h w D"]) -> Float32[Array, "I hw E"]:
            embeds = self.embeds(self.tower(x)).astype(jnp.float32)
            return embeds.reshape(len(x), -1, self.width)

        return jnp.concatenate([flat(x) for x in levels], axis=1)


def place_of(
    boxes: Float32[Array, "N 4"], cells: Cells, *, ranges: tuple[float, ...]
) -> Int32[Array, "N"]:
    """The location that stands for a box: at its middle, on the level of its size.

    Args:
      boxes: in pixels.
      cells: of every level.
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
    found: Bool[Array, "M"]  # a location stands for it


def _reference_of(
    embeds: Float32[Array, "P E"], targets: DenseTargets, *, objects: int
) -> _Reference:
    """The mean embedding of the locations that stand for each object."""
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
    """Loss of assigning locations of the key frame to objects of the reference frame.

    A location whose object is in the reference frame, but has no location there, as
    when another one hides its middle, does not count.

    Args:
      rng: key of the locations that are compared, if there are more than `most`.
      embeds: of all frames of B clips.
      targets: of all frames, with leading axis I.
      present: objects that are in each frame.
      roles: the key frame and the reference frame of each clip.
      most: locations of a key frame.
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

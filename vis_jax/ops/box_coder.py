"""Encodes boxes relative to reference boxes, and decodes them.

Girshick et al., "Rich feature hierarchies ..", CVPR 2014, appendix C.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp

from vis_jax.ops.boxes import from_cxcywh, to_cxcywh
from vis_jax.typing import Array, Float32


class BoxCoder(NamedTuple):
    """Scaling of box deltas.

    Attributes:
      stds: standard deviations of dx, dy, dw, dh; raw deltas are divided by them.
      log_range: bounds on the log of the side ratio when decoding.
    """

    stds: tuple[float, float, float, float]
    log_range: tuple[float, float]


# Decoded sides are at most 1000 / 16 times those of the reference.
_MOST = math.log(1000 / 16)
BOTH = (-_MOST, _MOST)  # mmdetection
UPPER = (-math.inf, _MOST)  # detectron2 and torchvision

UNIT = (1.0, 1.0, 1.0, 1.0)  # region proposals
ROI = (0.1, 0.1, 0.2, 0.2)  # second stage


def encode(
    boxes: Float32[Array, "*lead 4"],
    references: Float32[Array, "*lead 4"],
    *,
    coder: BoxCoder,
) -> Float32[Array, "*lead 4"]:
    """Returns deltas from references to boxes: (dx / w, dy / h, log, log) / stds.

    Empty boxes and references are widened to 1e-6 pixels so that padding stays finite.
    """
    boxes, references = to_cxcywh(boxes), to_cxcywh(references)
    sides = jnp.maximum(boxes[..., 2:], 1e-6)
    reference_sides = jnp.maximum(references[..., 2:], 1e-6)
    shift = (boxes[..., :2] - references[..., :2]) / reference_sides
    deltas = jnp.concatenate([shift, jnp.log(sides / reference_sides)], axis=-1)
    return deltas / _stds(coder, deltas.ndim)


def decode(
    deltas: Float32[Array, "*lead 4"],
    references: Float32[Array, "*lead 4"],
    *,
    coder: BoxCoder,
) -> Float32[Array, "*lead 4"]:
    """Returns boxes from deltas, in the units of the references; not clipped."""
    references = to_cxcywh(references)
    deltas = deltas * _stds(coder, deltas.ndim)
    centre = references[..., :2] + deltas[..., :2] * references[..., 2:]
    sides = references[..., 2:] * jnp.exp(jnp.clip(deltas[..., 2:], *coder.log_range))
    return from_cxcywh(jnp.concatenate([centre, sides], axis=-1))


def _stds(coder: BoxCoder, ndim: int) -> Float32[Array, "*ones 4"]:
    return jnp.array(coder.stds, jnp.float32).reshape((1,) * (ndim - 1) + (4,))

"""Objects of a frame with identity predictions, for any detector.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022, and its released code. Letters: C candidates, D objects per
frame, K classes, N identities, the last one for new objects.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32

# Score that orders objects in NMS. code: class and identity, one at half weight: the
# identity in the first frame, the class later. average: their mean.
Rank = Literal["code", "average"]


class IdObjects(NamedTuple):
    """Objects of a frame, best rank first; padding has zeros."""

    boxes: Float32[Array, "*lead D 4"]  # in pixels, within the content
    class_scores: Float32[Array, "*lead D K"]
    id_scores: Float32[Array, "*lead D N"]  # probabilities
    mask_logits: Float32[Array, "*lead D h w"]
    valid: Bool[Array, "*lead D"]


class Mixed(NamedTuple):
    """NMS ranks of candidates."""

    ranks: Float32[Array, "C"]
    counted: Bool[Array, "C"]  # candidates that may be objects


def mix(
    classes: Float32[Array, "C"],
    ids: Float32[Array, "C N"],
    *,
    first: Bool[Array, ""],
    rank: Rank,
    class_threshold: float,
    id_threshold: float,
) -> Mixed:
    """Combines class and identity scores into ranks.

    Args:
      classes: probability of the best class.
      ids: identity probabilities; N = 0 for none, then the class alone ranks.
      first: whether the frame is the first of its video.
      rank: see the type.
      class_threshold, id_threshold: lower bounds on class and best identity.
    """
    counted = classes > class_threshold
    if not ids.shape[1]:
        return Mixed(classes, counted)
    best = ids.max(axis=1)
    counted &= best > id_threshold
    if rank == "average":
        return Mixed((classes + best) / 2, counted)
    ranks = jnp.where(first, classes + best / 2, classes / 2 + best)
    return Mixed(ranks, counted)

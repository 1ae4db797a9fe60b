"""Objects of a frame that also say which identity they have, whatever finds them.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022, and its released code. Letters: C candidates, D objects of a
frame, K classes, N identities of which the last one is that of newcomers.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from vis_jax.typing import Array, Bool, Float32

# What orders objects in the suppression: class and identity, of which one has half the
# weight, in the first frame the identity and later the class; or their mean.
Rank = Literal["code", "average"]


class IdObjects(NamedTuple):
    """Objects of a frame, best rank first; padding has zeros."""

    boxes: Float32[Array, "*lead D 4"]  # in pixels, within the content
    class_scores: Float32[Array, "*lead D K"]
    id_scores: Float32[Array, "*lead D N"]  # probabilities
    mask_logits: Float32[Array, "*lead D h w"]
    valid: Bool[Array, "*lead D"]


class Mixed(NamedTuple):
    """Ranks of candidates."""

    ranks: Float32[Array, "C"]
    counted: Bool[Array, "C"]  # which ones may be objects


def mix(
    classes: Float32[Array, "C"],
    ids: Float32[Array, "C N"],
    *,
    first: Bool[Array, ""],
    rank: Rank,
    class_threshold: float,
    id_threshold: float,
) -> Mixed:
    """Scores that candidates are ranked by: of their class and their identity.

    Args:
      classes: probability of the best class.
      ids: probabilities of the identities; N = 0: there are none, and the class ranks.
      first: whether the frame is the first one of its video.
      rank: see the type.
      class_threshold, id_threshold: which class and best identity must be above.
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

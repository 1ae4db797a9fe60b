"""OVIS occlusion levels and their weights."""

import math

# Occluded fraction of each level, as in the OVIS evaluator.
OCCLUSION = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}
# OVIS states no limits. Its evaluator weights the last two levels by 0.25 and 0.75, the
# centres of the two halves of [0, 1]; less than 1 / 20 is hardly visible.
SLIGHT, SEVERE = 0.05, 0.5  # minimum occluded fraction


def occlusion_word(share: float) -> str | None:
    """Returns the OVIS level of an occluded fraction in [0, 1]; None for NaN."""
    if math.isnan(share):
        return None
    if share < SLIGHT:
        return "no_occlusion"
    return "slight_occlusion" if share < SEVERE else "severe_occlusion"


def occlusion_score(levels: list[str | None]) -> float:
    """Returns the mean weight over the more occluded half of the frames, 0 .. 0.75.

    Source: the OVIS evaluator.

    Args:
      levels: keys of OCCLUSION, None where the object is absent.

    Returns:
      Mean of the highest ceil(n / 2) weights of the n frames with a level; 0 if none.
    """
    weights = sorted((OCCLUSION[x] for x in levels if x is not None), reverse=True)
    half = weights[: (len(weights) + 1) // 2]
    return sum(half) / len(half) if half else 0.0

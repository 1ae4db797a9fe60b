"""Class-agnostic AP, used to detect category ids from another list.

A results file with ids from another category list scores near zero, however good its
tracks are.
"""

from collections import Counter, defaultdict
from typing import NamedTuple

from vis_jax.formats.json_checks import is_integer, show
from vis_jax.formats.tracks import Id, Results, TruthFile
from vis_jax.metrics.video_ap import (
    AREAS,
    Matches,
    accumulate,
    indexed_tracks,
    match,
    summarise,
)

# From this AP50 on, the ids are taken to match the ground truth.
DOUBTFUL_AP50 = 0.1
MIN_PAIRS = 5  # minimum number of matched tracks to judge the ids
MOST = 0.8  # fraction of them that a rule has to explain
_SHOWN = 4


class Agnostic(NamedTuple):
    """Class-agnostic scores and category pairs of the matches."""

    stats: dict[str, float | None]  # AP, AP50, ..; as in `video_ap.evaluate`
    pairs: Counter[tuple[Id, Id]]  # (predicted, true) category at IoU >= 0.5


def class_agnostic(
    truth: TruthFile, results: Results, *, official_quirks: bool = True
) -> Agnostic:
    """Computes AP with all categories merged.

    Predictions with unknown categories are included, tracks with unknown ones are not.

    Args:
      truth, results: as read by `results_json`.
      official_quirks: as in `video_ap.evaluate`.
    """
    predictions, tracks = defaultdict(list), defaultdict(list)
    for result in results.tracks:
        predictions[result.video_id].append(result)
    for track in indexed_tracks(truth, official_quirks):
        if track.category_id in truth.categories:
            tracks[track.video_id].append(track)
    found: list[Matches] = []
    pairs: Counter[tuple[Id, Id]] = Counter()
    for video_id in sorted(predictions.keys() | tracks.keys()):
        one = match(
            predictions[video_id],
            tracks[video_id],
            AREAS[:1],
            official_quirks=official_quirks,
        )
        found.append(one)
        true = one.matched[0, 0] & ~one.ignored[0, 0]
        for d in true.nonzero()[0].tolist():
            partner = tracks[video_id][one.partner[0, 0, d]]
            pairs[one.predictions[d].category_id, partner.category_id] += 1
    curves = accumulate([found], 1)
    return Agnostic(summarise(curves, AREAS[:1]), pairs)


def explain_pairs(pairs: Counter[tuple[Id, Id]]) -> str | None:
    """Explains in one line if a results file seems to use another category list.

    Args:
      pairs: as returned by `class_agnostic`.

    Returns:
      None if the categories agree, if no rule explains most pairs, or if they are few.
    """
    total = pairs.total()
    right = sum(n for (a, b), n in pairs.items() if a == b)
    if total < MIN_PAIRS or right >= MOST * total:
        return None
    shifts: Counter[int] = Counter()
    images: defaultdict[Id, Counter] = defaultdict(Counter)
    for (a, b), number in pairs.items():
        images[a][b] += number
        if is_integer(a) and is_integer(b):
            shifts[a - b] += number
    shift, number = shifts.most_common(1)[0] if shifts else (0, 0)
    if shift and number >= MOST * total:
        relation = f"{abs(shift)} {'above' if shift > 0 else 'below'}"
        return (
            f"category ids look shifted: in {number} of {total} tracks found, the id in"
            f" the results is {relation} that of the ground truth"
        )
    best = {a: image.most_common(1)[0] for a, image in images.items()}
    number = sum(n for _, n in best.values())
    moved = [(a, b) for a, (b, _) in best.items() if a != b]
    if not moved or number < MOST * total:
        return None
    shown = ", ".join(f"{show(a)} for {show(b)}" for a, b in moved[:_SHOWN])
    more = ", .." if len(moved) > _SHOWN else ""
    return (
        f"category ids look exchanged: in {number} of {total} tracks found, the results"
        f" have {shown}{more} of the ground truth"
    )

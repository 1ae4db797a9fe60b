"""Video average precision, equal to the official YouTube-VIS evaluator.

Yang et al., "Video Instance Segmentation", ICCV 2019. Letters: D predictions, G
annotated tracks, A ranges (of area and occlusion), T thresholds of IoU, R recall
points, K categories, M limits on predictions.
"""

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from vis_jax.formats.tracks import (
    MAX_PREDICTIONS,
    Id,
    Results,
    ResultTrack,
    TruthFile,
    TruthTrack,
)
from vis_jax.metrics.tube_overlap import matching_iou

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)


class Bounds(NamedTuple):
    """Bounds of area and occlusion of the tracks that count; both ends inclusive."""

    name: str
    area: tuple[float, float]  # mean pixels over the frames with a mask
    occlusion: tuple[float, float] | None  # OVIS only


AREAS = (
    Bounds("all", (0, 1e10), None),
    Bounds("small", (0, 128**2), None),
    Bounds("medium", (128**2, 256**2), None),
    Bounds("large", (256**2, 1e10), None),
)
OCCLUSIONS = (
    Bounds("light", (0, 1e10), (0.0, 0.25)),
    Bounds("moderate", (0, 1e10), (0.25, 0.5)),
    Bounds("heavy", (0, 1e10), (0.5, 1.0)),
)


class Matches(NamedTuple):
    """Matches of the predictions of one video and category."""

    predictions: list[ResultTrack]  # best score first, at most 100
    matched: np.ndarray  # bool[A, T, D]
    ignored: np.ndarray  # bool[A, T, D]: counts neither for nor against
    partner: np.ndarray  # int64[A, T, D], index of the matched track, -1 for none
    num_truths: np.ndarray  # int64[A], number of ground-truth tracks


class Curves(NamedTuple):
    """Arrays as in the official evaluator; -1 where there is no ground truth."""

    precision: np.ndarray  # float64[T, R, K, A, M]
    recall: np.ndarray  # float64[T, K, A, M]
    scores: np.ndarray  # float64[T, R, K, A, M], score at each recall point


class Scores(NamedTuple):
    """Output of `evaluate`. Values are in [0, 1]; None: no ground truth."""

    stats: dict[str, float | None]  # AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ..
    per_category: dict[Id, dict[str, float | None]]
    per_video: dict[Id, dict[str, float | None]]
    curves: Curves
    category_ids: list[Id]
    warnings: dict[str, int]  # irregularities of the files, with counts
    matches: dict[Id, dict[Id, Matches]]  # by category and video


def evaluate(
    truth: TruthFile,
    results: Results,
    *,
    official_quirks: bool = True,
    occlusion: bool = False,
    per_video: bool = False,
    progress: bool = False,
    matched: dict[tuple[Id, Id], Matches] | None = None,
) -> Scores:
    """Computes average precision and recall of tracks.

    Args:
      truth, results: as read by `results_json`.
      official_quirks: treat irregular input exactly as the official tool does;
        otherwise missing frames count as absent, masks of different sizes do not
        overlap, and id values have no special meaning.
      occlusion: add AP and AR for light, moderate and heavy occlusion (OVIS).
      per_video: also score each video alone.
      progress: show a bar if it takes more than some seconds.
      matched: output of `match_videos`, if already computed.

    Raises:
      ValueError: occlusion is requested, but a track has none.
    """
    ranges = AREAS + OCCLUSIONS if occlusion else AREAS
    categories = sorted(truth.categories)
    if matched is None:
        settings = {"official_quirks": official_quirks, "occlusion": occlusion}
        matched = match_videos(truth, results, **settings, progress=progress)
    matches: dict[Id, dict[Id, Matches]] = defaultdict(dict)  # by category, video
    for video_id, category in sorted(matched):
        matches[category][video_id] = matched[video_id, category]
    found = [list(matches[category].values()) for category in categories]
    curves = accumulate(found, len(ranges))
    return Scores(
        stats=summarise(curves, ranges),
        per_category={
            category: summarise(_one_category(curves, k), ranges)
            for k, category in enumerate(categories)
        },
        per_video=_per_video(matches) if per_video else {},
        curves=curves,
        category_ids=categories,
        warnings=dict(sorted(_warnings(truth, results).items())),
        matches=dict(matches),
    )


def match_videos(
    truth: TruthFile,
    results: Results,
    *,
    official_quirks: bool,
    occlusion: bool,
    progress: bool,
) -> dict[tuple[Id, Id], Matches]:
    """Matches every video and category with tracks or predictions.

    Args:
      truth, results, official_quirks, occlusion, progress: as in `evaluate`.

    Raises:
      ValueError: as in `evaluate`.
    """
    ranges = AREAS + OCCLUSIONS if occlusion else AREAS
    truths = indexed_tracks(truth, official_quirks)
    if occlusion and any(track.occlusion is None for track in truths):
        raise ValueError(f"{truth.name}: occlusion: expected a list for every track")
    groups_d = _group(results.tracks, truth)
    groups_g = _group(truths, truth)
    found = _without_truths(
        {key: group for key, group in groups_d.items() if key not in groups_g}, ranges
    )
    for key in tqdm(sorted(groups_g), "AP", delay=5, disable=not progress):
        found[key] = match(
            groups_d[key], groups_g[key], ranges, official_quirks=official_quirks
        )
    return found


def _without_truths(
    groups: dict[tuple[Id, Id], list[ResultTrack]], ranges: tuple[Bounds, ...]
) -> dict[tuple[Id, Id], Matches]:
    """Matches at once all predictions in videos without a track of their category."""
    best = {key: best_first(group) for key, group in groups.items()}
    stops = np.cumsum([len(group) for group in best.values()], dtype=np.int64)
    outside = _outside([x for group in best.values() for x in group], ranges)
    shape = (len(ranges), len(IOU_THRESHOLDS), outside.shape[-1])
    arrays = np.zeros(shape, bool), np.broadcast_to(outside, shape), np.full(shape, -1)
    matched, ignored, partner = (np.split(x, stops[:-1], axis=2) for x in arrays)
    none = np.zeros(len(ranges), np.int64)
    return {
        key: Matches(group, matched[i], ignored[i], partner[i], none)
        for i, (key, group) in enumerate(best.items())
    }


def _outside(tracks: list[ResultTrack], ranges: tuple[Bounds, ...]) -> np.ndarray:
    """Returns the predictions out of range: bool[A, 1, D]."""
    low, high = np.array([r.area for r in ranges]).T[..., None]
    area = np.array([track.mean_area for track in tracks])
    return ((area < low) | (area > high))[:, None, :]


def indexed_tracks(truth: TruthFile, official_quirks: bool) -> list[TruthTrack]:
    """Returns annotated tracks; with quirks the last of equal ids replaces the rest."""
    known = [track for track in truth.tracks if track.video_id in truth.videos]
    ordered = sorted(known, key=lambda track: track.video_id)
    if not official_quirks:
        return ordered
    by_id = {track.track_id: track for track in truth.tracks}
    return [by_id[track.track_id] for track in ordered]


def best_first(predictions: list[ResultTrack]) -> list[ResultTrack]:
    """Sorts and truncates the predictions of one video and category for matching.

    Equal scores keep the order of the file.
    """
    return sorted(predictions, key=lambda x: -x.score)[: MAX_PREDICTIONS[-1]]


def match(
    predictions: list[ResultTrack],
    truths: list[TruthTrack],
    ranges: tuple[Bounds, ...],
    *,
    official_quirks: bool,
) -> Matches:
    """Matches the tracks of one video and category greedily, best score first.

    Each prediction takes the free track with the highest IoU, at equal IoU the later
    one, and a track out of range only if no other is left.

    Args:
      predictions, truths: in file order.
      ranges: A ranges of tracks that count.
      official_quirks: a track with id 0 never matches.
    """
    best = best_first(predictions)
    shape = (len(ranges), len(IOU_THRESHOLDS), len(best))
    outside = _outside(best, ranges)
    out = _out_of_range(truths, ranges)
    if not best or not truths:
        ignored = outside.repeat(shape[1], axis=1)
        return Matches(
            best, np.zeros(shape, bool), ignored, np.full(shape, -1), (~out).sum(1)
        )
    iou = matching_iou(best, truths, official_quirks=official_quirks)
    partner = _assign(iou, out, np.array([x.crowd for x in truths]))
    has = partner >= 0
    ids = np.array([x.track_id for x in truths])
    matched = has & (ids[partner] != 0) if official_quirks else has
    partner_out = np.take_along_axis(out[:, None, :], partner, 2)
    ignored = (has & partner_out) | (~matched & outside)
    return Matches(best, matched, ignored, partner, (~out).sum(1))


def accumulate(found: list[list[Matches]], num_ranges: int) -> Curves:
    """Computes precision at 101 recall points.

    Args:
      found: for each of K categories, the matches of its videos ordered by id.
      num_ranges: A.
    """
    T, R, M = len(IOU_THRESHOLDS), len(RECALL_POINTS), len(MAX_PREDICTIONS)
    precision = np.full((T, R, len(found), num_ranges, M), -1.0)
    scores = precision.copy()
    recall = np.full((T, len(found), num_ranges, M), -1.0)
    for k, matches in enumerate(found):
        if not matches:
            continue
        needed = np.sum([x.num_truths for x in matches], axis=0)
        rank = np.concatenate([np.arange(len(x.predictions)) for x in matches])
        score = np.array([p.score for x in matches for p in x.predictions])
        matched = np.concatenate([x.matched for x in matches], axis=2)
        ignored = np.concatenate([x.ignored for x in matches], axis=2)
        for m, limit in enumerate(MAX_PREDICTIONS):
            kept = np.flatnonzero(rank < limit)
            kept = kept[np.argsort(-score[kept], kind="stable")]
            for a in np.flatnonzero(needed):
                curve = _curve(matched[a][:, kept], ignored[a][:, kept], needed[a])
                precision[:, :, k, a, m], recall[:, k, a, m], at = curve
                padded = np.append(score[kept], 0.0)
                scores[:, :, k, a, m] = padded[at]
    return Curves(precision, recall, scores)


def summarise(curves: Curves, ranges: tuple[Bounds, ...]) -> dict[str, float | None]:
    """Computes the official metrics: means over defined entries, None if undefined.

    Args:
      curves: as returned by `accumulate`.
      ranges: those of the axis A; small, medium and large area follow "all".
    """
    suffix = {"small": "s", "medium": "m", "large": "l"}
    suffix |= {"light": "_SO", "moderate": "_MO", "heavy": "_HO"}
    precision, recall = curves.precision, curves.recall
    stats = {
        "AP": _mean(precision[..., 0, -1]),
        "AP50": _mean(precision[0, ..., 0, -1]),
        "AP75": _mean(precision[5, ..., 0, -1]),
    }
    for a, r in enumerate(ranges[1:], 1):
        stats[f"AP{suffix[r.name]}"] = _mean(precision[..., a, -1])
    for m, limit in enumerate(MAX_PREDICTIONS):
        stats[f"AR{limit}"] = _mean(recall[..., 0, m])
    for a, r in enumerate(ranges[1:], 1):
        stats[f"AR{suffix[r.name]}"] = _mean(recall[..., a, -1])
    return stats


def _mean(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else None


def _one_category(curves: Curves, k: int) -> Curves:
    precision, recall, scores = curves
    one = [k]
    return Curves(precision[:, :, one], recall[:, one], scores[:, :, one])


def _group(tracks: list, truth: TruthFile) -> defaultdict:
    """Groups tracks by (video, category), dropping unknown categories."""
    groups = defaultdict(list)
    for track in tracks:
        if track.category_id in truth.categories:
            groups[track.video_id, track.category_id].append(track)
    return groups


def _out_of_range(truths: list[TruthTrack], ranges: tuple[Bounds, ...]) -> np.ndarray:
    """Returns the tracks out of range: bool[A, G]."""
    out = np.zeros((len(ranges), len(truths)), bool)
    for a, (_, (low, high), occlusion) in enumerate(ranges):
        for g, track in enumerate(truths):
            out[a, g] = track.crowd or not low <= track.mean_area <= high
            if occlusion is not None and track.occlusion is not None:
                out[a, g] |= not occlusion[0] <= track.occlusion <= occlusion[1]
    return out


def _assign(iou: np.ndarray, out: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Returns the track matched to each prediction: int64[A, T, D], -1 for none.

    Args:
      iou: float64[D, G], best score first.
      out: bool[A, G], tracks out of range.
      crowd: bool[G], crowd tracks, which may match repeatedly.
    """
    A, T, G = len(out), len(IOU_THRESHOLDS), iou.shape[1]
    partner = np.full((A, T, len(iou)), -1)
    taken = np.zeros((A, T, G), bool)
    for d in np.flatnonzero(iou.max(1) >= IOU_THRESHOLDS[0]):
        free = (iou[d] >= IOU_THRESHOLDS[:, None]) & (~taken | crowd)
        inside = free & ~out[:, None, :]
        choice = np.where(inside.any(2, keepdims=True), inside, free)
        # Reversed, so that argmax picks the last of equal IoUs.
        value = np.where(choice, iou[d], -1.0)[..., ::-1]
        best = G - 1 - value.argmax(2)
        partner[:, :, d] = np.where(choice.any(2), best, -1)
        a, t = np.nonzero(choice.any(2))
        taken[a, t, best[a, t]] = True
    return partner


def _curve(
    matched: np.ndarray, ignored: np.ndarray, needed: int | np.integer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns precision at the recall points, final recall, and their indices.

    Args:
      matched, ignored: bool[T, n], best score first.
      needed: number of tracks to find.
    """
    true = np.cumsum(matched & ~ignored, axis=1).astype(np.float64)
    false = np.cumsum(~matched & ~ignored, axis=1).astype(np.float64)
    n = true.shape[1]
    at = np.full((len(true), len(RECALL_POINTS)), n)
    if n == 0:
        return np.zeros(at.shape), np.zeros(len(true)), at
    recall = true / needed
    precision = true / (false + true + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    for t, row in enumerate(recall):
        at[t] = np.searchsorted(row, RECALL_POINTS, side="left")
    padded = np.pad(envelope, ((0, 0), (0, 1)))  # 0 where a recall is not reached
    return np.take_along_axis(padded, at, 1), recall[:, -1], at


def _per_video(
    matches: dict[Id, dict[Id, Matches]],
) -> dict[Id, dict[str, float | None]]:
    """Computes AP and AR of each video, over the categories it contains."""
    by_video = defaultdict(list)
    for found in matches.values():
        for video_id, one in found.items():
            if one.num_truths[0]:
                first = [array[:1] for array in one[1:]]
                by_video[video_id].append([Matches(one.predictions, *first)])
    return {
        video_id: summarise(accumulate(by_video[video_id], 1), AREAS[:1])
        for video_id in sorted(by_video)
    }


def _warnings(truth: TruthFile, results: Results) -> Counter:
    counts = truth.tolerated + results.tolerated
    counts["truth: crowd tracks"] += sum(track.crowd for track in truth.tracks)
    counts["truth: tracks without a visible frame"] += sum(
        not track.areas.any()
        for track in truth.tracks
        if track.video_id in truth.videos
    )
    counts["results: tracks without a pixel"] += sum(
        not track.areas.any() for track in results.tracks
    )
    return +counts

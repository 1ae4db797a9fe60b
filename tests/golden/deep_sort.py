"""Runs the Kalman filter and the tracker on the stored DeepSORT case.

Matches and unmatched items are sets: if ours equal the stored ones, they are returned
in the stored order.
"""

import dataclasses

import jax
import numpy as np

from tests.compiled import compiled
from tests.golden.cases import Case
from vis_jax.ops.boxes import box_iou
from vis_jax.structures import Clip, Detections
from vis_jax.trackers import deep_sort, kalman
from vis_jax.typing import Array

# Number of roundings of a position of ours, each by half a unit in the last place.
_ROUNDINGS = 4


def compare(case: Case) -> dict[str, Array]:
    """Computes our arrays by stored name."""
    case.rounding = gate_rounding(case)
    return {**_filter(case), **_distances(case), **_sequence(case)}


def gate_rounding(case: Case) -> dict[str, np.ndarray]:
    """Bounds the difference of gating distances due to float32 positions.

    The tolerance of the case is that of float64, which the authors compute in. A
    distance is d = |e|^2 with e = L^-1 (z - m), of a box z and an expected one m that
    lie close to each other: where positions of some 200 pixels are rounded by 1e-5,
    their difference of a few pixels is off by 1e-6 of itself, whatever the formula.
    Rounding S = L L' or its Cholesky factor to float32 has a tenth of that effect. With
    u = 2^-24 both are off by up to 4 u max(|z|, |m|) =: r in each entry, and d by
    2 |e| |L^-1 r| to first order.
    """
    boxes = case.arrays["kalman/measurements"]
    unit = 2.0**-24
    results = {}
    for name in case.arrays:
        kind, _, number = name.removeprefix("kalman/").partition("/")
        if kind not in ("gating", "gating_position"):
            continue
        entries = 4 if kind == "gating" else 2
        mean = case.arrays[f"kalman/projected_mean/{number}"][:entries]
        covariance = case.arrays[f"kalman/projected_covariance/{number}"]
        inverse = np.linalg.inv(np.linalg.cholesky(covariance[:entries, :entries]))
        largest = np.maximum(np.abs(boxes[:, :entries]), np.abs(mean))
        off = _ROUNDINGS * unit * largest @ np.abs(inverse).T
        results[name] = 2 * np.sqrt(case.arrays[name]) * np.linalg.norm(off, axis=1)
    return results


def _filter(case: Case) -> dict[str, Array]:
    results: dict[str, Array] = {}
    boxes = case.arrays["kalman/measurements"].astype(np.float32)
    predict, update = compiled(kalman.predict), compiled(kalman.update)
    project, gating = compiled(kalman.project), compiled(kalman.gating_distance)

    def keep(state, mean, covariance):
        results[mean], results[covariance] = state.mean, state.covariance

    state = compiled(kalman.initiate)(boxes[0])
    keep(state, "kalman/mean/init", "kalman/covariance/init")
    for i in range(1, len(boxes)):
        state = predict(state)
        keep(state, f"kalman/mean/predict{i}", f"kalman/covariance/predict{i}")
        box = project(state)
        keep(box, f"kalman/projected_mean/{i}", f"kalman/projected_covariance/{i}")
        centre = kalman.Gaussian(box.mean[:2], box.covariance[:2, :2])
        results[f"kalman/gating/{i}"] = gating(box, boxes)
        results[f"kalman/gating_position/{i}"] = gating(centre, boxes[:, :2])
        state = update(state, boxes[i])
        keep(state, f"kalman/mean/update{i}", f"kalman/covariance/update{i}")
    return results


def _distances(case: Case) -> dict[str, Array]:
    kept, descriptors = (
        case.arrays[f"metric/{x}"].astype(np.float32) for x in ("a", "b")
    )
    state = deep_sort.empty_state(1, len(kept), kept.shape[1])
    state = state._replace(descriptors=kept[None], hits=np.array([len(kept)]))
    boxes = np.zeros((len(descriptors), 4))
    found = _detections(boxes, descriptors, len(descriptors))
    cosine = compiled(deep_sort.compare)(state, found).descriptor_distances[0]
    # The boxes of the stored overlaps are not stored: these have the same overlaps.
    others = np.array(
        [[0, 0, 10, 10], [4, 0, 14, 10], [10, 0, 20, 10], [0, 0, 5, 5]], np.float32
    )
    return {
        "metric/nn_cosine": cosine,
        # The squared distance between vectors of unit length.
        "metric/nn_euclidean": 2 * cosine,
        "iou/output": compiled(box_iou)(others[:1], others)[0],
    }


def _detections(boxes, descriptors, count: int) -> Detections:
    """Makes the detections of one frame, padded."""
    slots = len(boxes)
    return Detections(
        boxes=boxes.astype(np.float32),
        scores=np.ones(slots, np.float32),
        labels=np.zeros(slots, np.int32),
        valid=np.arange(slots) < count,
        embeds=np.zeros((slots, 0), np.float32),
        descriptors=descriptors.astype(np.float32),
        mask_logits=np.zeros((slots, 1, 1), np.float32),
    )


def _tracker(case: Case):
    stored = case.manifest["settings"]
    settings = dataclasses.replace(
        deep_sort.PUBLISHED,
        min_score=0.0,
        max_cosine_distance=stored["max_cosine_distance"],
        max_iou_distance=stored["max_iou_distance"],
        max_age=stored["max_age"],
        n_init=stored["n_init"],
        budget=stored["nn_budget"],
    )
    # A slot for every identity that the authors' tracker gave.
    tracks = [x for name, x in case.arrays.items() if name.endswith("/tracks")]
    slots = max((int(x[:, 0].max(initial=1)) for x in tracks), default=1)
    return deep_sort.build(settings, slots + 1)


def _sequence(case: Case) -> dict[str, Array]:
    """Runs the tracker on all frames, one at a time."""
    tracker = _tracker(case)
    start, track = compiled(tracker.start), compiled(tracker.track)
    clip = Clip(
        np.zeros((1, 1, 1, 3), np.uint8), np.ones(1, bool), np.ones(2, np.int32)
    )
    results: dict[str, Array] = {}
    born: dict[int, int] = {}
    state = None
    frames = sum(name.endswith("/detections") for name in case.arrays)
    for t in range(frames):
        found = _frame(case, t)
        before = state = start(clip, found) if state is None else state
        state, tracked = track({}, state, clip, found)
        ids = np.asarray(tracked.track_ids[0])
        for track_id in ids[ids > 0]:
            born.setdefault(int(track_id), t)
        results |= _matches(case, t, before, ids)
        results |= _tracks(t, state, born)
    return {name: value for name, value in results.items() if name in case.arrays}


def _frame(case: Case, t: int) -> Detections:
    """Returns the detections of frame t, padded: [1, D]."""
    stored = case.arrays[f"frame/{t}/detections"]
    descriptors = case.arrays[f"frame/{t}/features"]
    counts = [len(x) for name, x in case.arrays.items() if name.endswith("/detections")]
    more = ((0, max(*counts, 1) - len(stored)), (0, 0))
    boxes = np.concatenate([stored[:, :2], stored[:, :2] + stored[:, 2:4]], axis=1)
    found = _detections(np.pad(boxes, more), np.pad(descriptors, more), len(stored))
    return jax.tree.map(lambda x: x[None], found)


def _live(state: deep_sort.State) -> np.ndarray:
    """Returns the slots of live tracks, whose positions are the case's indices."""
    live = (deep_sort.TENTATIVE, deep_sort.CONFIRMED)
    return np.flatnonzero(np.isin(np.asarray(state.status), live))


def _matches(case: Case, t: int, before: deep_sort.State, ids: np.ndarray):
    """Infers the matches from the previous state and the ids of the frame."""
    live = _live(before).tolist()
    count = len(case.arrays[f"frame/{t}/detections"])
    pairs = {live.index(ids[d] - 1): d for d in range(count) if ids[d] - 1 in live}
    ours: dict[str, list] = {
        "matches": list(pairs.items()),
        "unmatched_tracks": [i for i in range(len(live)) if i not in pairs],
        "unmatched_detections": [d for d in range(count) if d not in pairs.values()],
    }
    return {
        f"frame/{t}/{name}": _in_order_of(case.arrays[f"frame/{t}/{name}"], values)
        for name, values in ours.items()
    }


def _in_order_of(stored: np.ndarray, values: list) -> np.ndarray:
    """Returns our values, in the stored order if they equal the stored ones."""
    ours = np.asarray(values, stored.dtype).reshape((-1, *stored.shape[1:]))
    if ours.shape != stored.shape:
        return ours
    # By index, or by the first one of a pair: none occurs twice.
    theirs, mine = (x if x.ndim == 1 else x[:, 0] for x in (stored, ours))
    places = np.argsort(np.argsort(theirs))
    return ours[np.argsort(mine)][places]


def _tracks(t: int, state: deep_sort.State, born: dict[int, int]):
    """Returns the live tracks after the frame."""
    live = _live(state)
    columns = [
        live + 1,
        np.asarray(state.status)[live],
        np.asarray(state.hits)[live],
        [t + 1 - born[slot + 1] for slot in live],
        np.asarray(state.unseen)[live],
        *np.asarray(state.filters.mean)[live].T,
    ]
    return {
        f"frame/{t}/tracks": np.stack(columns, axis=1),
        f"frame/{t}/covariance": np.asarray(state.filters.covariance)[live],
    }

"""Our metrics on the stored case of the official evaluator and of TrackEval.

Curves over thresholds, of which the metrics here report the mean, have no entry.
"""

import re
from pathlib import Path

import numpy as np

from tests.golden.cases import Case
from vis_jax.metrics.frame_overlaps import video_overlaps
from vis_jax.metrics.results_json import load_results, load_truth
from vis_jax.metrics.tracking import tracking_scores
from vis_jax.metrics.video_ap import evaluate

_SCORE = 0.3  # of the predictions that the tracking metrics saw
_CLEAR = {"TP": "CLR_TP", "FN": "CLR_FN", "FP": "CLR_FP"}


def compare(case: Case) -> dict[str, np.ndarray]:
    """Our arrays by stored name; the files lie in `evaluator/` beside the case."""
    folder = case.path.parent / "evaluator"
    results: dict[str, np.ndarray] = {}
    for name in case.arrays:
        found = re.fullmatch(r"(\w+)/stats", name)
        if found:
            results |= _average_precision(folder, found[1])
            if any(x.startswith(f"tracking/{found[1]}/") for x in case.arrays):
                results |= _tracking(folder, found[1])
    return {name: values for name, values in results.items() if name in case.arrays}


def _load(folder: Path, name: str):
    truth = load_truth(folder / f"{name}_gt.json")
    return truth, load_results(folder / f"{name}_results.json", truth)


def _average_precision(folder: Path, name: str) -> dict[str, np.ndarray]:
    found = evaluate(*_load(folder, name))
    stats = [-1 if value is None else value for value in found.stats.values()]
    return {
        f"{name}/stats": np.array(stats),
        f"{name}/precision": found.curves.precision,
        f"{name}/recall": found.curves.recall,
    }


def _tracking(folder: Path, name: str) -> dict[str, np.ndarray]:
    truth, predictions = _load(folder, name)
    scores = tracking_scores(
        truth, predictions, class_aware=False, score_threshold=_SCORE
    )
    rows = {"OVERALL": scores} | {str(k): v for k, v in scores["videos"].items()}
    results = {}
    for video, row in rows.items():
        for key, value in row.items():
            if key in ("HOTA", "DetA", "AssA", "LocA", "videos"):
                continue  # means over thresholds
            identity = key.startswith("ID") and key != "IDSW"
            path = f"Identity/{key}" if identity else f"CLEAR/{_CLEAR.get(key, key)}"
            results[f"trackeval/{name}/{video}/{path}"] = np.asarray(value)
    for video in truth.videos:
        overlaps = video_overlaps(
            [x for x in truth.tracks if x.video_id == video and not x.crowd],
            [
                x
                for x in predictions.tracks
                if x.video_id == video and x.score >= _SCORE
            ],
            kind="mask",
            class_aware=False,
        )
        for t, iou in enumerate(overlaps.ious):
            results[f"tracking/{name}/{video}/frame{t}/similarity"] = np.asarray(iou)
    return results

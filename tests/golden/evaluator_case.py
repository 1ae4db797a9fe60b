"""Our metrics on the stored case of public evaluators of tracks."""

import re
from pathlib import Path

import numpy as np

from tests.golden.cases import Case
from vis_jax.formats.results_json import load_results, load_truth
from vis_jax.formats.tracks import Results, TruthFile
from vis_jax.metrics.frame_overlaps import video_overlaps
from vis_jax.metrics.tracking import Measures, measure, pool
from vis_jax.metrics.tube_overlap import tube_overlap
from vis_jax.metrics.video_ap import best_first, evaluate, indexed_tracks

Arrays = dict[str, np.ndarray]

_SCORE = 0.3  # of the predictions that the tracking metrics saw
# The columns of `motmetrics/..`; the first three are about identities.
_MOTMETRICS = (
    *("mota", "motp", "num_switches", "num_fragmentations", "mostly_tracked"),
    *("partially_tracked", "mostly_lost", "num_false_positives", "num_misses"),
    *("num_matches", "num_objects", "num_predictions", "precision", "recall"),
)


def compare(case: Case) -> Arrays:
    """Our arrays by stored name; the files lie in `evaluator/` beside the case."""
    folder = case.path.parent / "evaluator"
    results: Arrays = {}
    for name in case.arrays:
        found = re.fullmatch(r"(\w+)/stats", name)
        if found:
            truth, predictions = _load(folder, found[1])
            results |= _average_precision(truth, predictions, found[1])
            results |= _tube_overlaps(truth, predictions, found[1])
            if any(x.startswith(f"tracking/{found[1]}/") for x in case.arrays):
                results |= _tracking(truth, predictions, found[1])
    return {name: values for name, values in results.items() if name in case.arrays}


def _load(folder: Path, name: str) -> tuple[TruthFile, Results]:
    truth = load_truth(folder / f"{name}_gt.json")
    return truth, load_results(folder / f"{name}_results.json", truth)


def _average_precision(truth: TruthFile, predictions: Results, name: str) -> Arrays:
    found = evaluate(truth, predictions)
    stats = [-1 if value is None else value for value in found.stats.values()]
    return {
        f"{name}/stats": np.array(stats),
        f"{name}/precision": found.curves.precision,
        f"{name}/recall": found.curves.recall,
    }


def _tube_overlaps(truth: TruthFile, predictions: Results, name: str) -> Arrays:
    tracks = indexed_tracks(truth, official_quirks=True)
    results = {}
    for key in {(x.video_id, x.category_id) for x in [*tracks, *predictions.tracks]}:
        of_key = [
            [x for x in part if (x.video_id, x.category_id) == key]
            for part in (predictions.tracks, tracks)
        ]
        overlap = tube_overlap(best_first(of_key[0]), of_key[1], official_quirks=True)
        results[f"{name}/ious/{key[0]}_{key[1]}"] = overlap.iou()
    return results


def _tracking(truth: TruthFile, predictions: Results, name: str) -> Arrays:
    results: Arrays = {}
    videos: dict[object, Measures] = {}
    frames: dict[object, int] = {}
    for video in truth.videos:
        truths = [x for x in truth.tracks if x.video_id == video and not x.crowd]
        kept = [
            x for x in predictions.tracks if x.video_id == video and x.score >= _SCORE
        ]
        overlaps = video_overlaps(truths, kept, kind="mask", class_aware=False)
        videos[video] = measure(overlaps, _SCORE)
        # Without masks on one of the sides TrackEval ends before it counts frames.
        sides = overlaps.truth_ids, overlaps.result_ids
        both = all(any(map(len, ids)) for ids in sides)
        frames[video] = len(overlaps.ious) if both else 0
        for t, (rows, columns, iou) in enumerate(zip(*overlaps[:3], strict=True)):
            path = f"tracking/{name}/{video}/frame{t}"
            results[f"{path}/similarity"] = iou
            results[f"{path}/gt_ids"] = np.array([truths[i].track_id for i in rows])
            results[f"{path}/pred_ids"] = np.array([kept[i].position for i in columns])
    for video, one in videos.items():
        found = _trackeval(one, frames[video])
        if not frames[video]:
            found["CLEAR/MLR"] = 1
        results |= _named(found, f"trackeval/{name}/{video}")
        results[f"motmetrics/{name}/{video}"] = _motmetrics(one)
    pooled = pool(videos)
    overall = _motmetrics(pooled)
    # Deviation: py-motmetrics adds up distances from means, so that one video without a
    # match makes `motp` of all of them NaN.
    if any(one.motmetrics.report()["motp"] is None for one in videos.values()):
        overall[3 + _MOTMETRICS.index("motp")] = np.nan
    results[f"motmetrics/{name}/OVERALL"] = overall
    found = _trackeval(pooled, sum(frames.values()))
    return results | _named(found, f"trackeval/{name}/OVERALL")


def _named(values: dict, folder: str) -> Arrays:
    return {f"{folder}/{key}": np.asarray(value) for key, value in values.items()}


def _trackeval(found: Measures, frames: int) -> dict:
    """TrackEval's numbers by its names, with those that it only makes of ours."""
    hota, clear = found.hota, found.clear
    rows = hota.rows()
    rows["OWTA"] = np.sqrt(rows["DetRe"] * rows["AssA"])
    rows |= {f"HOTA_{key}": getattr(hota, key) for key in ("TP", "FN", "FP")}
    first = {key: rows[key][0] for key in ("HOTA", "LocA")}
    rows |= {f"{key}(0)": value for key, value in first.items()}
    rows["HOTALocA(0)"] = first["HOTA"] * first["LocA"]
    objects, tracks = clear.TP + clear.FN, clear.MT + clear.PT + clear.ML
    true = clear.TP - clear.FP
    counts = clear._asdict() | {"MOTP_sum": clear.iou}
    counts |= {f"{key}R": counts[key] / max(1, tracks) for key in ("MT", "PT", "ML")}
    ratios = clear.report() | {
        "MODA": true / max(1, objects),
        "MOTAL": (true - np.log10(max(1, clear.IDSW))) / max(1, objects),
        "F1": clear.TP / max(1, clear.TP + 0.5 * (clear.FN + clear.FP)),
        "FP_per_frame": clear.FP / max(1, frames),
        "Frames": frames,
    }
    own = ("TP", "FN", "FP", "Re", "Pr", "F1", "Frames")
    every = {f"CLR_{k}" if k in own else k: v for k, v in (counts | ratios).items()}
    del every["iou"]
    identity = found.identity._asdict() | found.identity.report()
    families = {"HOTA": rows, "CLEAR": every, "Identity": identity}
    return {
        f"{family}/{key}": value
        for family, values in families.items()
        for key, value in values.items()
    }


def _motmetrics(found: Measures) -> np.ndarray:
    report = found.motmetrics.report()
    identity = {key: found.identity.report()[key] for key in ("IDF1", "IDP", "IDR")}
    if not report["num_predictions"]:
        identity["IDP"] = None  # TrackEval: 0
    values = [*identity.values(), *(report[key] for key in _MOTMETRICS)]
    return np.array([np.nan if value is None else value for value in values])

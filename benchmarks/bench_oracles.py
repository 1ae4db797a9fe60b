"""Measures the effect of association on moving shapes, with oracle masks.

Run: python benchmarks/bench_oracles.py [--videos 50] [--length 24] [--least-iou 0.1]

Both oracles get every ground-truth mask with its class. `random` permutes the
identities of each frame among its instances; `previous frame` gives a mask the identity
of the mask of its class in the previous frame that matches by box IoU of at least 0.1,
or a new one. A track has the most frequent class of its masks, with its frequency as
score. IDF1 counts every track. The last row, ground-truth identities, is the control.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import linear_sum_assignment

from data_pipeline.datasets.dataset import Dataset, VideoTruth
from data_pipeline.moving_shapes.dataset import MovingShapes
from data_pipeline.moving_shapes.motion import DIFFICULTIES
from data_pipeline.write.annotations import to_ytvis
from vis_jax.formats import tracks as formats
from vis_jax.formats.results_json import parse_results
from vis_jax.formats.truth_json import parse_truth
from vis_jax.metrics.frame_overlaps import box_iou
from vis_jax.metrics.tracking import tracking_scores
from vis_jax.metrics.video_ap import evaluate


def true_identities(truth: VideoTruth) -> np.ndarray:
    """Returns the ground-truth id of each mask, [M, T]."""
    return np.broadcast_to(truth.track_ids[:, None], truth.present.shape)


def random_identities(truth: VideoTruth, rng: np.random.Generator) -> np.ndarray:
    """Returns ids shuffled within each frame: [M, T]."""
    ids = np.zeros(truth.present.shape, np.int32)
    for t, seen in enumerate(truth.present.T):
        ids[seen, t] = rng.permutation(truth.track_ids[seen])
    return ids


def previous_frame_identities(truth: VideoTruth, least_iou: float) -> np.ndarray:
    """Returns ids propagated from frame to frame by box IoU within a class, [M, T]."""
    ids = np.zeros(truth.present.shape, np.int32)
    last = 0
    for t, seen in enumerate(truth.present.T):
        now = np.flatnonzero(seen)
        before = np.flatnonzero(truth.present[:, t - 1]) if t else now[:0]
        iou = box_iou(truth.boxes[before, t - 1], truth.boxes[now, t])
        iou *= truth.labels[before][:, None] == truth.labels[now]
        for row, column in zip(*linear_sum_assignment(-iou), strict=True):
            if iou[row, column] >= least_iou:
                ids[now[column], t] = ids[before[row], t - 1]
        new = now[ids[now, t] == 0]
        ids[new, t] = last + 1 + np.arange(len(new))
        last += len(new)
    return ids


def result_entries(
    dataset: Dataset, index: int, truth: VideoTruth, ids: np.ndarray
) -> list[dict]:
    """Returns an entry of a results file for each identity in `ids` [M, T]."""
    video = dataset.videos[index]
    masks: dict[int, list] = defaultdict(lambda: [None] * video.length)
    labels: dict[int, Counter] = defaultdict(Counter)
    for m, t in np.argwhere(truth.present):
        number = int(ids[m, t])
        masks[number][t] = truth.segmentations[m][t]
        labels[number][int(truth.labels[m])] += 1
    entries = []
    for number, segmentations in masks.items():
        label, votes = labels[number].most_common(1)[0]
        entries.append(
            {
                "video_id": video.video_id,
                "category_id": dataset.categories[label].category_id,
                "score": votes / labels[number].total(),
                "segmentations": segmentations,
            }
        )
    return entries


def oracles(least_iou: float) -> dict[str, Callable[[VideoTruth], np.ndarray]]:
    """Returns the rows of the table."""
    rng = np.random.default_rng(0)
    return {
        "random": partial(random_identities, rng=rng),
        "previous frame": partial(previous_frame_identities, least_iou=least_iou),
        "true": true_identities,
    }


def measure(
    dataset: Dataset,
    truth: formats.TruthFile,
    oracle: Callable[[VideoTruth], np.ndarray],
) -> dict[str, float]:
    """Computes AP, AP50 and IDF1 of an oracle."""
    entries = []
    for index in range(len(dataset.videos)):
        known = dataset.truth(index)
        entries += result_entries(dataset, index, known, oracle(known))
    results = parse_results(entries, truth)
    stats = evaluate(truth, results).stats
    tracking = tracking_scores(truth, results, score_threshold=0.0)
    return {"AP": stats["AP"], "AP50": stats["AP50"], "IDF1": tracking["IDF1"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=50, help="of the val split")
    parser.add_argument("--length", type=int, help="frames; by default 20 to 30")
    parser.add_argument("--least-iou", type=float, default=0.1)
    flags = parser.parse_args()
    length = flags.length or (20, 30)
    print("| difficulty | identities | AP | AP50 | IDF1 |")
    print("| --- | --- | --- | --- | --- |")
    for difficulty in DIFFICULTIES:
        dataset = MovingShapes(
            "val", num_videos=flags.videos, length=length, difficulty=difficulty
        )
        truth = parse_truth(to_ytvis(dataset))
        for name, oracle in oracles(flags.least_iou).items():
            row = measure(dataset, truth, oracle)
            numbers = " | ".join(f"{100 * value:.1f}" for value in row.values())
            print(f"| {difficulty} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()

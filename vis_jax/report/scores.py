"""Report of scored results: metrics, curves, errors, and videos, worst first."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from vis_jax.formats.tracks import Id, Results, TruthFile
from vis_jax.metrics.error_breakdown import (
    Account,
    Finding,
    summarise_account,
    take_account,
)
from vis_jax.metrics.oracle_scores import oracle_scores
from vis_jax.metrics.video_ap import Scores, evaluate, indexed_tracks
from vis_jax.report.page import write_page
from vis_jax.report.pictures import Frames, data_uri
from vis_jax.report.score_video import Tubes, fitting_tracks, size_of
from vis_jax.report.tubes import ShownFrames

# Budgets of the whole page in bytes, for pictures of frames and for tracks. Once spent,
# the remaining videos have no pictures, or only a row in the table.
PICTURE_BYTES = 6_000_000
TRACK_BYTES = 4_000_000
CLASSES = 60  # maximum number of classes with a curve
SHOWN_NUMBERS = ("AP", "AP50", "AP75", "AR10", "HOTA", "AssA", "IDF1", "MOTA", "IDSW")


class Settings(NamedTuple):
    """Options of a report."""

    score_threshold: float = 0.3  # for predictions in time lines and identity switches
    official_quirks: bool = True  # as in `video_ap.evaluate`
    frames: Frames | None = None  # None: masks are shown on a plain background
    progress: bool = False


PLAIN = Settings()


def write_score_report(
    path: str | os.PathLike,
    truth: TruthFile,
    results: Results,
    numbers: Mapping[str, object],
    settings: Settings = PLAIN,
) -> None:
    """Writes one HTML file that compares results with the ground truth.

    Args:
      path: path of the file; an existing one is replaced.
      truth, results: as read by `results_json`.
      numbers: output of `scoring.score`; tracking metrics are shown beside AP.
      settings: settings of the report.

    Raises:
      OSError: the file cannot be written; names it.
    """
    write_page(path, score_content(truth, results, numbers, settings))


def score_content(
    truth: TruthFile,
    results: Results,
    numbers: Mapping[str, object],
    settings: Settings,
) -> dict:
    """Returns the content of the page, as JSON values."""
    quirks = settings.official_quirks
    scores = evaluate(truth, results, official_quirks=quirks, per_video=True)
    account = take_account(
        truth, results, official_quirks=quirks, progress=settings.progress
    )
    oracles = oracle_scores(truth, results, official_quirks=quirks)
    shown = {**numbers, **scores.stats}
    return {
        "kind": "score",
        "title": f"Scores of {os.path.basename(results.name)}",
        "files": [
            ["results", results.name],
            ["truth", truth.name],
            ["time lines: scores from", f"{settings.score_threshold:g}"],
        ],
        "summary": [
            [name, _rounded(shown[name])] for name in SHOWN_NUMBERS if name in shown
        ],
        "classes": [truth.categories[k] for k in scores.category_ids],
        "categories": _category_rows(truth, scores),
        "curves": _curves(scores),
        "errors": _errors(account),
        "oracles": {
            name: _rounded(one["AP"])
            for name, one in {"as it is": scores.stats, **oracles}.items()
        },
        "videos": _videos(truth, account, scores, settings),
    }


def _rounded(value: object) -> float | int | None:
    """Rounds a number for JSON, which has no NaN."""
    if value is None or isinstance(value, int | np.integer):
        return None if value is None else int(value)
    return round(float(value), 5) if isinstance(value, float | np.floating) else None


def _category_rows(truth: TruthFile, scores: Scores) -> list[dict]:
    counts = Counter(track.category_id for track in truth.tracks)
    return [
        {
            "name": truth.categories[category],
            "AP": _rounded(scores.per_category[category]["AP"]),
            "tracks": counts[category],
        }
        for category in scores.category_ids
    ]


def _curves(scores: Scores) -> dict:
    """Returns precision at 101 recalls: class means, and each class at IoU 0.5."""
    precision = scores.curves.precision[..., 0, -1]  # [T, R, K]
    defined = (precision[0, 0] > -1).nonzero()[0]
    if not len(defined):
        return {"mean": {}, "classes": {}}
    mean = precision[..., defined].mean(2)
    lines = {"IoU 0.50": mean[0], "IoU 0.75": mean[5], "IoU 0.50 to 0.95": mean.mean(0)}
    return {
        "mean": {name: line.round(4).tolist() for name, line in lines.items()},
        "classes": {
            int(k): precision[0, :, k].round(4).tolist() for k in defined[:CLASSES]
        },
    }


def _errors(account: Account) -> list[list]:
    """Returns the name, the AP50 lost and the count of each type of error."""
    found = summarise_account(account)
    return [
        [kind, _rounded(lost), found["counts"][kind]]
        for kind, lost in found["lost"].items()
    ]


def _videos(
    truth: TruthFile, account: Account, scores: Scores, settings: Settings
) -> list[dict]:
    """Returns a row per video, worst first, with tracks and pictures while they fit."""
    tubes = _tubes(truth, account, settings.official_quirks)
    classes = {category: k for k, category in enumerate(scores.category_ids)}
    rows, budget = [], Budget(settings.frames)
    order = sorted(truth.videos, key=lambda v: _badness(scores, account, v))
    for video_id in tqdm(order, "report", delay=5, disable=not settings.progress):
        video, counts = truth.videos[video_id], account.videos[video_id]
        stats = scores.per_video.get(video_id, {})
        row: dict = {
            "name": video.name,
            "AP": _rounded(stats.get("AP")),
            "errors": {kind: number for kind, number in counts.items() if number},
        }
        if budget.tracks_left:
            tracks = fitting_tracks(
                video, tubes[video_id], settings.score_threshold, classes
            )
            row |= tracks | {"masks": True}
            row["pictures"] = budget.pictures(video_id, tracks)
        rows.append(row)
    return rows


def _badness(scores: Scores, account: Account, video_id: Id) -> tuple:
    """Sort key: lowest AP first, then most errors; videos without AP come last."""
    value = scores.per_video.get(video_id, {}).get("AP")
    errors = sum(account.videos[video_id].values())
    return value is None, value or 0.0, -errors


class Budget:
    """Limits the size of the page.

    Args:
      frames: reads the pictures; None: there are none.
    """

    def __init__(self, frames: Frames | None) -> None:
        self._frames = frames
        self._pictures = PICTURE_BYTES
        self._tracks = TRACK_BYTES

    @property
    def tracks_left(self) -> bool:
        """Whether the tracks of another video may be added."""
        return self._tracks > 0

    def pictures(self, video_id: Id, tracks: dict) -> list[str | int] | None:
        """Charges a video's tracks to the budget, and returns its pictures if they fit.

        Args:
          video_id: id of the video.
          tracks: as returned by `tracks_of_video`.

        Returns:
          A data URI for each shown frame, 0 for unreadable ones; None without pictures.
        """
        self._tracks -= size_of(tracks)
        if self._frames is None or self._pictures <= 0:
            return None
        view = ShownFrames(
            *(tracks[key] for key in ("height", "width", "step", "frames"))
        )
        found: list[str | int] = []
        for t in view.frames:
            pixels = self._frames(video_id, t)
            found.append(0 if pixels is None else data_uri(pixels, view))
        self._pictures -= sum(len(str(picture)) for picture in found)
        return found if any(found) else None


def _tubes(
    truth: TruthFile, account: Account, official_quirks: bool
) -> dict[Id, Tubes]:
    """Returns the evaluated tracks of each video."""
    findings: defaultdict[Id, list[Finding]] = defaultdict(list)
    for finding in account.findings:
        findings[finding.track.video_id].append(finding)
    truths = defaultdict(list)
    for number, track in enumerate(indexed_tracks(truth, official_quirks)):
        if number in account.targets:
            truths[track.video_id].append((number, track))
    return {
        video_id: Tubes(truths[video_id], findings[video_id], account.missed)
        for video_id in truth.videos
    }

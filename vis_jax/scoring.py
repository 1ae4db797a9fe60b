"""Scores a results file against ground truth.

Needs neither JAX nor TensorFlow.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from vis_jax.formats.disk import check_folder
from vis_jax.formats.json_checks import FormatError, write_json
from vis_jax.formats.results_json import load_results, load_truth
from vis_jax.formats.tracks import Results, TruthFile
from vis_jax.metrics.category_check import (
    DOUBTFUL_AP50,
    class_agnostic,
    explain_pairs,
)
from vis_jax.metrics.error_breakdown import error_breakdown
from vis_jax.metrics.parallel import PartFindings, ScoringJob, Workers, num_workers
from vis_jax.metrics.tracking import (
    identity_report,
    identity_scores,
    tracking_report,
    tracking_scores,
)
from vis_jax.metrics.video_ap import Scores, evaluate

# Metrics of a tracking report for which higher is better.
METRICS = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm",
    "ARl", "HOTA", "DetA", "DetRe", "DetPr", "AssA", "AssRe", "AssPr", "LocA", "MOTA",
    "sMOTA", "MOTP", "Re", "Pr", "IDF1", "IDP", "IDR",
)  # fmt: skip


class Options(NamedTuple):
    """Metrics to compute besides the twelve of video AP, and their settings."""

    identities: bool = True  # IDF1, AssA and IDSW, also part of `tracking`
    tracking: bool = False  # HOTA, DetA, .. MOTA, .. IDF1, .. IDSW, Frag
    per_video: bool = False  # a list `videos`
    per_category: bool = False  # a list `categories`
    occlusion: bool = False  # AP and AR by occlusion (OVIS)
    errors: bool = False  # AP50 lost to each kind of error
    # Add AP without categories; None: only if AP50 is below 0.1.
    class_agnostic: bool | None = None
    # Score irregular files exactly like the official tool, with `warnings`; otherwise
    # they are errors.
    official_quirks: bool = True
    # Options of the tracking metrics:
    score_threshold: float = 0.3  # predictions below are left out
    box_tracking: bool = False  # on boxes around the masks
    class_aware: bool = True  # tracks of different categories do not match


PLAIN = Options()


def score(
    truth_path: str | os.PathLike,
    results_path: str | os.PathLike,
    output_path: str | os.PathLike | None = None,
    *,
    options: Options = PLAIN,
    report_path: str | os.PathLike | None = None,
    frames: str | os.PathLike | None = None,
    progress: bool = False,
    workers: int | None = None,
) -> dict:
    """Computes video AP and, optionally, tracking metrics and an error breakdown.

    Args:
      truth_path, results_path: instances.json with annotations, and results.json.
      output_path: JSON file for the metrics; None: not written.
      options: further metrics to compute.
      report_path: HTML page with masks, curves and errors; None: not written.
      frames: folder of the frames named in `truth_path`, for that page; None: the page
        shows masks only.
      progress: show progress bars in long runs.
      workers: maximum number of processes, used for large files; None: one per core.

    Returns:
      The metrics, in [0, 1]; None where there is no ground truth.

    Raises:
      FormatError: a file is malformed.
      ValueError: a folder is missing, or has none of the frames.
    """
    check_folder("output", output_path)
    check_folder("--report", report_path)
    write_page = None
    # These three need the masks of all tracks at once.
    if options.errors or options.class_agnostic or report_path is not None:
        workers = 1
    job = _job(truth_path, results_path, options)
    with Workers(job, num_workers() if workers is None else workers) as several:
        truth = load_truth(truth_path, official_quirks=options.official_quirks)
        if report_path is not None:
            folder = (truth_path, frames) if frames is not None else None
            write_page = _page_writer(report_path, folder, options, progress)
        found = several.find(truth)
    results = _results(results_path, truth, options, found)
    report = _report(truth, results, options, progress, found)
    if output_path is not None:
        write_json(output_path, report, indent=1)
    if write_page is not None:
        write_page(truth, results, report)
    return report


def _results(
    path: str | os.PathLike,
    truth: TruthFile,
    options: Options,
    found: PartFindings | None,
) -> Results:
    """Reads the results, unless the worker processes did."""
    if found is None:
        return load_results(path, truth, official_quirks=options.official_quirks)
    return Results(str(path), found.tracks, found.tolerated)


def _page_writer(
    path: str | os.PathLike,
    folder: tuple[str | os.PathLike, str | os.PathLike] | None,
    options: Options,
    progress: bool,
) -> Callable[[TruthFile, Results, dict], None]:
    """Returns a function that writes the HTML page, after checking its inputs.

    Args:
      path: output file.
      folder: (ground-truth file, folder of its frames); None: no pictures.
      options, progress: as in `score`.

    Raises:
      ValueError: the folder has none of the frames.
    """
    # Imported here, as metrics alone need no pictures.
    from vis_jax.report.pictures import FolderFrames
    from vis_jax.report.scores import Settings, write_score_report

    frames = FolderFrames(folder[1], folder[0]) if folder else None
    quirks = options.official_quirks
    settings = Settings(options.score_threshold, quirks, frames, progress)
    return partial(write_score_report, path, settings=settings)


def _job(
    truth_path: str | os.PathLike, results_path: str | os.PathLike, options: Options
) -> ScoringJob:
    kept = "identities" if options.identities else "none"
    return ScoringJob(
        truth=os.fspath(truth_path),
        results=os.fspath(results_path),
        official_quirks=options.official_quirks,
        occlusion=options.occlusion,
        tracking="all" if options.tracking else kept,
        kind="box" if options.box_tracking else "mask",
        class_aware=options.class_aware,
        score_threshold=options.score_threshold,
    )


def _report(
    truth: TruthFile,
    results: Results,
    options: Options,
    progress: bool,
    part: PartFindings | None = None,
) -> dict:
    """Computes all requested metrics.

    Args:
      truth, results, options, progress: as in `score`.
      part: findings of the worker processes; `results` then has no masks.
    """
    found = evaluate(
        truth,
        results,
        official_quirks=options.official_quirks,
        occlusion=options.occlusion,
        per_video=options.per_video,
        progress=progress,
        matched=part.matches if part else None,
    )
    report: dict = dict(found.stats)
    videos = _video_rows(truth, found)
    if options.tracking or options.identities:
        tracked = _tracked(truth, results, options, progress, part)
        _add_tracking(report, videos, tracked)
    doubtful = options.class_agnostic is None and _doubtful(found, results)
    if options.class_agnostic or doubtful:
        if part:
            quirks = options.official_quirks
            results = load_results(results.name, truth, official_quirks=quirks)
        report["class_agnostic"] = _without_categories(truth, results, options)
    if options.errors:
        quirks = options.official_quirks
        lost = error_breakdown(
            truth, results, official_quirks=quirks, progress=progress
        )
        _add_errors(report, videos, lost)
    if options.per_category:
        report["categories"] = _category_rows(truth, results, found)
    if options.per_video:
        report["videos"] = videos
    report["warnings"] = found.warnings
    return report


def _tracked(
    truth: TruthFile,
    results: Results,
    options: Options,
    progress: bool,
    part: PartFindings | None,
) -> dict:
    """Computes all tracking metrics, or the three identity metrics."""
    if part and options.tracking:
        return tracking_report(part.measures, part.curve)
    if part:
        return identity_report(part.measures)
    kind = "box" if options.box_tracking else "mask"
    if not options.tracking:
        return identity_scores(
            truth,
            results,
            kind=kind,
            class_aware=options.class_aware,
            score_threshold=options.score_threshold,
            progress=progress,
        )
    return tracking_scores(
        truth,
        results,
        kind=kind,
        class_aware=options.class_aware,
        score_threshold=options.score_threshold,
        sweep=True,
        progress=progress,
    )


def _doubtful(found: Scores, results: Results) -> bool:
    """Returns whether AP is so low that the results may use another category list."""
    ap50 = found.stats["AP50"]
    return ap50 is not None and ap50 < DOUBTFUL_AP50 and bool(results.tracks)


def _without_categories(truth: TruthFile, results: Results, options: Options) -> dict:
    """Returns class-agnostic AP and AP50, with a note if category ids look wrong."""
    found = class_agnostic(truth, results, official_quirks=options.official_quirks)
    note = explain_pairs(found.pairs)
    return {"AP": found.stats["AP"], "AP50": found.stats["AP50"], "note": note}


def score_short_long(
    short_path: str | os.PathLike,
    long_path: str | os.PathLike,
    results_path: str | os.PathLike,
    output_path: str | os.PathLike | None = None,
    *,
    score_threshold: float = PLAIN.score_threshold,
    official_quirks: bool = True,
) -> dict:
    """Scores one results file on the short and long videos of YouTube-VIS 2022.

    Args:
      short_path, long_path: the two ground-truth files.
      results_path, output_path: as in `score`.
      score_threshold, official_quirks: as in `Options`.

    Returns:
      `mAP`, the mean of both APs, and the metrics of each under `short` and `long`.

    Raises:
      FormatError: a file is malformed, a video is in both ground-truth files, or a
        prediction belongs to a video in neither.
    """
    check_folder("output", output_path)
    parts = {
        "short": load_truth(short_path, official_quirks=official_quirks),
        "long": load_truth(long_path, official_quirks=official_quirks),
    }
    both = parts["short"].videos.keys() & parts["long"].videos.keys()
    if both:
        raise FormatError(
            f"{long_path}: videos: expected none of {short_path}, got id {min(both)}"
        )
    union = parts["short"]._replace(
        videos=parts["short"].videos | parts["long"].videos,
        categories=parts["short"].categories | parts["long"].categories,
    )
    results = load_results(results_path, union, official_quirks=official_quirks)
    options = Options(official_quirks=official_quirks, score_threshold=score_threshold)
    report: dict = {"mAP": None}
    for name, truth in parts.items():
        tracks = [track for track in results.tracks if track.video_id in truth.videos]
        part = results._replace(tracks=tracks)
        report[name] = _report(truth, part, options, progress=False)
    values = [report[name]["AP"] for name in parts]
    if None not in values:
        report["mAP"] = sum(values) / 2
    if output_path is not None:
        write_json(output_path, report, indent=1)
    return report


def _video_rows(truth: TruthFile, found: Scores) -> list[dict]:
    nothing = dict.fromkeys(("AP", "AP50", "AP75", "AR1", "AR10", "AR100"))
    return [
        {"id": video_id, "name": video.name} | found.per_video.get(video_id, nothing)
        for video_id, video in sorted(truth.videos.items())
    ]


def _add_tracking(report: dict, videos: list[dict], tracked: dict) -> None:
    """Adds tracking metrics to the report and to the rows of its videos."""
    report |= {key: tracked[key] for key in tracked if key != "videos"}
    for row in videos:
        row |= tracked["videos"][row["id"]]


def _add_errors(report: dict, videos: list[dict], lost: dict) -> None:
    """Adds the error breakdown to the report and to the rows of its videos."""
    report["errors"] = {key: lost[key] for key in lost if key != "videos"}
    for row in videos:
        row["errors"] = lost["videos"].get(row["id"], {})


def _category_rows(truth: TruthFile, results: Results, found: Scores) -> list[dict]:
    rows = []
    for category_id in found.category_ids:
        row: dict = {"id": category_id, "name": truth.categories[category_id]}
        for key, tracks in (("tracks", truth.tracks), ("predictions", results.tracks)):
            row[key] = sum(track.category_id == category_id for track in tracks)
        rows.append(row | found.per_category[category_id])
    return rows

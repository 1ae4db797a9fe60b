"""Compares results files on the same videos, with confidence intervals.

The intervals are bootstrap percentiles over the videos. The bootstrap is paired: each
sample uses the same videos for all files.
"""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vis_jax.formats.disk import check_folder
from vis_jax.formats.json_checks import write_json
from vis_jax.formats.results_json import load_results, load_truth
from vis_jax.formats.tracks import Id, TruthFile
from vis_jax.metrics.bootstrap import draw, identity_samples, precision_samples
from vis_jax.metrics.tracking import identity_measures, pool, three
from vis_jax.metrics.video_ap import evaluate

METRICS = ("AP", "AP50", "AP75", "AR10", "IDF1", "AssA", "IDSW")
INTERVAL = (2.5, 97.5)  # percentiles


class Sampling(NamedTuple):
    """Number of bootstrap samples, and the seed."""

    samples: int = 1000
    seed: int = 0


DEFAULT = Sampling()


class _Values(NamedTuple):
    """The metrics of one file."""

    value: dict[str, float]  # over all videos; NaN where undefined
    samples: dict[str, np.ndarray]  # float64[S]


def compare(
    truth_path: str | os.PathLike,
    results_paths: Sequence[str | os.PathLike],
    output_path: str | os.PathLike | None = None,
    *,
    sampling: Sampling = DEFAULT,
    score_threshold: float = 0.3,
    official_quirks: bool = True,
) -> dict:
    """Scores files with 95 % intervals, and compares each with the first.

    Args:
      truth_path: instances.json with annotations.
      results_paths: two or more files.
      output_path: JSON file for the metrics; None: not written.
      sampling: number of samples and seed.
      score_threshold: IDF1, AssA and IDSW ignore predictions below it.
      official_quirks: as in `scoring.Options`.

    Returns:
      `videos`, `samples`, `seed`, and `files`: a row each with `name` and, under each
      metric, `value`, `low`, `high`, and from the second file on `difference` to the
      first: `value`, `low`, `high`, and `better`, the share of the samples in which it
      is above the first (IDSW: below), ties counting half. None: undefined.

    Raises:
      FormatError: a file is malformed.
      ValueError: too few files, samples or videos, or no folder for the output.
    """
    if (number := len(results_paths)) < 2:
        raise ValueError(f"results: expected two files or more, got {number}")
    if sampling.samples < 1:
        raise ValueError(f"samples: expected at least 1, got {sampling.samples}")
    check_folder("output", output_path)
    truth = load_truth(truth_path, official_quirks=official_quirks)
    if not truth.videos:
        raise ValueError(f"{truth_path}: videos: expected at least one, got none")
    counts = draw(len(truth.videos), sampling.samples, sampling.seed)
    found = [
        _values(truth, path, counts, score_threshold, official_quirks)
        for path in results_paths
    ]
    rows = [
        _row(os.fspath(path), one, found[0])
        for path, one in zip(results_paths, found, strict=True)
    ]
    report = {"videos": len(truth.videos)} | sampling._asdict() | {"files": rows}
    if output_path is not None:
        write_json(output_path, report, indent=1)
    return report


def _row(name: str, found: _Values, first: _Values) -> dict:
    """Returns the metrics of a file, and their differences from the first file."""
    row: dict = {"name": name}
    for metric in METRICS:
        row[metric] = _interval(found.value[metric], found.samples[metric])
        if found is not first:
            row[metric]["difference"] = _difference(first, found, metric)
    return row


def _values(
    truth: TruthFile,
    path: str | os.PathLike,
    counts: np.ndarray,
    score_threshold: float,
    official_quirks: bool,
) -> _Values:
    results = load_results(path, truth, official_quirks=official_quirks)
    found = evaluate(truth, results, official_quirks=official_quirks)
    measures = identity_measures(truth, results, score_threshold=score_threshold)
    whole = found.stats | three(pool(measures))
    videos: list[Id] = sorted(truth.videos)
    return _Values(
        {name: _number(whole[name]) for name in METRICS},
        precision_samples(found.matches, videos, counts)
        | identity_samples(measures, videos, counts),
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _interval(value: float, samples: np.ndarray) -> dict:
    """Returns a value and its interval, over the samples in which it is defined."""
    defined = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(defined):
        return {"value": None, "low": None, "high": None}
    low, high = np.percentile(defined, INTERVAL).tolist()
    return {"value": value, "low": low, "high": high}


def _difference(first: _Values, other: _Values, name: str) -> dict:
    gain = other.samples[name] - first.samples[name]
    found = _interval(other.value[name] - first.value[name], gain)
    defined = gain[~np.isnan(gain)]
    if found["value"] is None:
        return found | {"better": None}
    better = -defined if name == "IDSW" else defined
    share = np.mean((better > 0) + 0.5 * (better == 0))
    return found | {"better": float(share)}


def format_comparison(report: Mapping) -> str:
    """Formats the metrics of `compare` as an aligned table, fractions in percent."""
    names = [row["name"] for row in report["files"]]
    lines = [f"{chr(65 + i % 26)}  {name}" for i, name in enumerate(names)]
    lines += [f"95 % intervals of {report['samples']} samples of the "]
    lines[-1] += f"{report['videos']} videos, seed {report['seed']}"
    table = [["", *(chr(65 + i % 26) for i in range(len(names)))]]
    table[0] += [f"{chr(65 + i % 26)} - A" for i in range(1, len(names))]
    table[0] += [f"{chr(65 + i % 26)} better" for i in range(1, len(names))]
    for metric in METRICS:
        cells = [row[metric] for row in report["files"]]
        gains = [cell["difference"] for cell in cells[1:]]
        line = [metric, *(_range(metric, cell, "") for cell in cells)]
        line += [_range(metric, gain, "+") for gain in gains]
        line += [_share(gain["better"]) for gain in gains]
        table.append(line)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    aligned = [
        "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True))
        for line in table
    ]
    return "\n".join([*lines, "", *aligned]) + "\n"


def _range(metric: str, cell: Mapping, sign: str) -> str:
    """Formats a value with its interval."""
    if cell["value"] is None:
        return "-"
    scale, digits = (1, 0) if metric == "IDSW" else (100, 1)
    value, low, high = (
        f"{scale * cell[key]:{sign}.{digits}f}" for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"

"""Draws the metrics of runs (metrics.jsonl) as an image and an HTML page.

The folder of a sweep stands for all its runs. The page needs no network; it has the
curves as SVG and the last value of every metric.

examples:
  python -m vis_jax.main runs plot runs/shapes --output runs/curves
  python -m vis_jax.main runs plot runs/a runs/b --output curves \\
      --metrics 'train/loss,eval/*'
"""

import fnmatch
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from vis_jax.paths import on_disk

METRICS = (
    *("train/loss", "eval*/AP", "eval*/AP50", "eval*/HOTA", "eval*/IDF1"),
    *("train/*", "notes/*"),
)
FILES = ("curves.png", "curves.html")
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Curves of {count} runs</title>
<style>
body {{ font-family: sans-serif; margin: 2em; color: #333 }}
svg {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse; font-size: 14px }}
th, td {{ padding: 2px 14px; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }}
</style>
<h1>Curves</h1>
{svg}
<h1>Last values</h1>
<table>
{rows}
</table>
</html>
"""


class Metrics(NamedTuple):
    """Metrics of one run."""

    name: str
    series: Mapping[str, list[tuple[int, float | None]]]  # (step, value) by metric


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    flags.DEFINE_list("workdirs", None, "folders of runs", flag_values=values)
    flags.DEFINE_string(
        "output", None, "folder for curves.png and curves.html", flag_values=values
    )
    flags.DEFINE_list(
        "metrics",
        list(METRICS),
        "metrics to draw; * matches any characters",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Writes both files."""
    if not values.workdirs:
        raise ValueError("--workdirs: expected folders of runs, got none")
    if not values.output:
        raise ValueError("--output: expected a folder, got none")
    folders = [
        one for name in values.workdirs for one in runs_in(on_disk("--workdirs", name))
    ]
    runs = [
        Metrics(label, read_series(folder))
        for folder, label in zip(folders, labels_of(folders), strict=True)
    ]
    names = chosen(runs, values.metrics)
    output = on_disk("--output", values.output)
    for path in write_curves(runs, names, output):
        print(f"curves        {path}")


def runs_in(folder: Path) -> list[Path]:
    """Returns the folder itself if it is a run, else the runs in it.

    Raises:
      ValueError: there is no run.
    """
    from vis_jax.training.metrics_file import METRICS_FILE

    if (folder / METRICS_FILE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{METRICS_FILE}"))
    if not found:
        raise ValueError(
            f"{folder}: expected {METRICS_FILE} of a run, got no such file"
        )
    return found


def labels_of(folders: Sequence[Path]) -> list[str]:
    """Returns the folder names without their common part."""
    if len({folder.absolute() for folder in folders}) == 1:
        return [folder.absolute().name for folder in folders]
    shared = os.path.commonpath([folder.absolute() for folder in folders])
    return [os.path.relpath(folder.absolute(), shared) for folder in folders]


def read_series(folder: Path) -> dict[str, list[tuple[int, float | None]]]:
    """Reads the metrics of a run, as (step, value) by metric.

    Raises:
      ValueError: a line of the file is damaged.
    """
    from vis_jax.training.metrics_file import METRICS_FILE, read_metrics

    series: dict[str, list[tuple[int, float | None]]] = {}
    for line in read_metrics(folder / METRICS_FILE):
        for name, value in line.items():
            if "/" in name and (value is None or isinstance(value, int | float)):
                series.setdefault(name, []).append((line["step"], value))
    return series


def chosen(runs: Sequence[Metrics], patterns: Sequence[str]) -> list[str]:
    """Returns the metrics to draw, in pattern order; notes only if not all zero.

    Raises:
      ValueError: no run has a matching metric.
    """
    known = dict.fromkeys(name for one in runs for name in one.series)
    found = dict.fromkeys(
        name
        for pattern in patterns
        for name in fnmatch.filter(known, pattern)
        if not name.startswith("notes/") or _is_seen(runs, name)
    )
    if not found:
        raise ValueError(
            f"--metrics: expected some of {', '.join(known)}, got {','.join(patterns)}"
        )
    return list(found)


def _is_seen(runs: Sequence[Metrics], name: str) -> bool:
    return any(value for one in runs for _, value in one.series.get(name, ()))


def write_curves(
    runs: Sequence[Metrics], names: Sequence[str], output: Path
) -> list[Path]:
    """Writes `curves.png` and `curves.html`.

    Args:
      runs: runs, whose names label the curves.
      names: metrics to draw.
      output: folder, created if missing.
    """
    from vis_jax.visualize.chart import Curve, Panel, draw_panels, to_image, to_svg

    panels = []
    for name in names:
        found = [(one.name, one.series[name]) for one in runs if name in one.series]
        curves = [Curve(label, *zip(*row, strict=True)) for label, row in found]
        panels.append(Panel(name, curves))
    chart = draw_panels(panels)
    picture, page = (output / file for file in FILES)
    output.mkdir(parents=True, exist_ok=True)
    to_image(chart).save(picture)
    rows = "\n".join(_rows(runs))
    text = _PAGE.format(count=len(runs), svg=to_svg(chart), rows=rows)
    page.write_text(text, encoding="utf-8")
    return [picture, page]


def _rows(runs: Sequence[Metrics]) -> list[str]:
    """Formats the last value of every metric as table rows."""
    heads = ["metric", *(f"{one.name}" for one in runs)]
    rows = [_row("th", heads)]
    for name in dict.fromkeys(name for one in runs for name in one.series):
        last = [one.series[name][-1] if name in one.series else None for one in runs]
        texts = [
            "-" if one is None or one[1] is None else f"{one[1]:.6g} (step {one[0]})"
            for one in last
        ]
        rows.append(_row("td", [name, *texts]))
    return rows


def _row(kind: str, texts: Sequence[str]) -> str:
    cells = "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in texts)
    return f"<tr>{cells}</tr>"

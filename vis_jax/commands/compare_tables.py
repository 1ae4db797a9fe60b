"""Formats the tables of `compare`, with published numbers alongside."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

PAPER = "Yang et al., ICCV 2019: ResNet-50, YouTube-VIS 2019 validation"


class Table(NamedTuple):
    """Columns of a table, and the published numbers."""

    title: str
    columns: tuple[str, ...]  # names from `vis_jax.scoring`
    paper_columns: tuple[str, ...]
    paper: Mapping[str, Sequence[float | None]]  # percent, by row


_AP = ("AP", "AP50", "AP75")
# Table 1. The numbers of osmn_masks are from later papers, not the original one.
TRACKERS = Table(
    title="Table 1: trackers on the same detections",
    columns=(*_AP, "AR1", "AR10", "IDF1", "HOTA", "IDSW"),
    paper_columns=(*_AP, "AR1", "AR10"),
    paper={
        "iou": (23.6, 39.2, 25.5, 26.2, 30.9),
        "osmn": (27.5, 45.1, 29.1, 28.6, 33.1),
        "osmn_masks": (23.4, None, None, None, None),
        "deep_sort": (26.1, 42.9, 26.1, 27.8, 31.3),
        "seq": (27.5, 45.7, 28.7, 29.7, 32.5),
        "mask_track": (30.3, 51.6, 32.2, 30.6, 35.5),
    },
)
# Table 2, where a cue that is off weighs 0.
CUES = Table(
    title="Table 2: cues of mask_track besides appearance",
    columns=_AP,
    paper_columns=_AP,
    paper={
        "cues_none": (16.2, 29.5, 17.1),
        "cues_det": (19.0, 35.0, 19.7),
        "cues_iou": (23.7, 41.8, 26.1),
        "cues_det_iou": (24.7, 42.1, 26.4),
        "cues_cat": (24.7, 44.0, 25.6),
        "cues_det_cat": (25.7, 46.2, 26.3),
        "cues_iou_cat": (29.8, 50.6, 31.5),
        "cues_det_iou_cat": (30.3, 51.6, 32.2),
    },
)
# Table 3.
ORACLES = Table(
    title="Table 3: with perfect detections, with perfect identities",
    columns=("AP", "AR10"),
    paper_columns=("AP", "AR10"),
    paper={"oracle_image": (78.7, 83.7), "oracle_identity": (31.5, 34.6)},
)
# Rows of `--vary`, which no paper has.
VARIED = Table(
    title="Settings of test varied, all else as in the config",
    columns=(*_AP, "AR1", "AR10", "IDF1", "HOTA", "IDSW"),
    paper_columns=(),
    paper={},
)


def format_table(table: Table, rows: Mapping[str, Mapping]) -> str:
    """Formats a table, with our numbers on the left and the paper's on the right.

    Args:
      table: table to format.
      rows: by name, as in `compare.json`; `missing` explains why a row has no numbers,
        and is printed below the table.
    """
    head = ["", *("" for _ in table.columns), *("paper" for _ in table.paper_columns)]
    lines = [head, ["", *table.columns, *table.paper_columns]]
    for name, numbers in rows.items():
        paper = table.paper.get(name, (None,) * len(table.paper_columns))
        ours = [_cell(numbers.get(column)) for column in table.columns]
        lines.append([name, *ours, *("-" if x is None else f"{x:.1f}" for x in paper)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [table.title, *([f"paper: {PAPER}"] if table.paper else [])]
    for line in lines:
        first, *others = map(_justify, line, widths, range(len(line)))
        text.append("  ".join((first, *others)).rstrip())
    text += [f"{k}: {v['missing']}" for k, v in rows.items() if "missing" in v]
    return "\n".join(text) + "\n"


def _justify(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def _cell(value: float | int | None) -> str:
    """Formats a value; fractions in percent."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)

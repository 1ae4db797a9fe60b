"""Formats the table of scores that commands print."""

NUM_WORST = 5  # videos listed
_LISTED = ("tracks", "predictions", "AP", "AP50", "AP75", "AR1", "AR10", "HOTA", "IDF1")
# Metrics that py-motmetrics counts differently.
_MOTMETRICS = (
    *("mota", "num_switches", "num_fragmentations"),
    *("mostly_tracked", "partially_tracked", "mostly_lost"),
)


def format_table(report: dict) -> str:
    """Formats the metrics of `score` as an aligned table, fractions in percent."""
    lines = []
    numbers = {k: v for k, v in report.items() if not isinstance(v, dict | list)}
    for names in _rows_of(list(numbers), 9):
        cells = [_cell(name, numbers[name]) for name in names]
        lines += _aligned([names, cells]) + [""]
    if "class_agnostic" in report:
        lines += _agnostic_lines(report["class_agnostic"])
    if "best" in report and report["best"]["IDF1"] is not None:
        best = report["best"]
        lines += [
            f"best IDF1 {100 * best['IDF1']:.1f} at score threshold "
            f"{best['score_threshold']:.2f}",
            "",
        ]
    if "motmetrics" in report:
        cells = [_cell(name, report["motmetrics"][name]) for name in _MOTMETRICS]
        lines.append("by the rules of py-motmetrics")
        lines += _aligned([list(_MOTMETRICS), cells]) + [""]
    if "errors" in report:
        lost = report["errors"]["lost"]
        lines.append("AP50 lost to")
        lines += _aligned([list(lost), [_cell(k, v) for k, v in lost.items()]]) + [""]
    if "categories" in report:
        lines += _listing("category", report["categories"]) + [""]
    if "videos" in report:
        rows = [row for row in report["videos"] if row["AP"] is not None]
        worst = sorted(rows, key=lambda row: row["AP"])[:NUM_WORST]
        lines += _listing("worst video", worst) + [""]
    for kind, count in report.get("warnings", {}).items():
        lines.append(f"warning: {kind}: {count}")
    return "\n".join(lines).rstrip() + "\n"


def _agnostic_lines(found: dict) -> list[str]:
    numbers = " and ".join(f"{k} {_cell(k, found[k])}" for k in ("AP", "AP50"))
    note = [f"warning: {found['note']}"] if found["note"] else []
    return [f"{numbers} if categories are not compared", *note, ""]


def _rows_of(names: list[str], width: int) -> list[list[str]]:
    return [names[i : i + width] for i in range(0, len(names), width)]


def _cell(name: str, value: float | int | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{100 * value:.1f}"
    return str(value)


def _listing(title: str, rows: list[dict]) -> list[str]:
    """Formats one line per row, starting with its left-aligned name."""
    columns = [key for key in _LISTED if rows and key in rows[0]]
    names = [title, *(row["name"] for row in rows)]
    width = max(map(len, names))
    cells = [[_cell(key, row[key]) for key in columns] for row in rows]
    numbers = _aligned([columns, *cells])
    return [
        f"{name.ljust(width)}  {line}"
        for name, line in zip(names, numbers, strict=True)
    ]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
        for row in rows
    ]

"""Conversion reports: for people, and as a record beside the weights."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vis_jax.converters.rules import ConvertReport

_SHOWN = 4  # name patterns per line
_INDENT = "\n              "


def format_report(report: ConvertReport) -> str:
    """Returns a few lines; numbers in names become *, which groups layers."""
    filled = Counter(path.split("/")[1] for path in report.params)
    parts = ", ".join(f"{name} {count}" for name, count in filled.items())
    lines = [f"used          {len(report.used)} tensors; arrays filled: {parts}"]
    reasons: dict[str, list[str]] = {}
    for name, reason in report.dropped.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        kinds = list(_kinds(names))
        more = ", .." if len(kinds) > _SHOWN else ""
        listing = ", ".join(kinds[:_SHOWN]) + more
        lines.append(f"dropped       {len(names)}: {reason}{_INDENT}{listing}")
    lines.append(
        f"new           {len(report.new)} arrays keep their initial values"
        + "".join(_INDENT + kind for kind in modules_of(report.new))
    )
    lines += [f"note          {note}" for note in report.notes]
    return "\n".join(lines)


def record_of(
    report: ConvertReport, files: Sequence[Path], kind: str, base: Sequence[Path] = ()
) -> str:
    """Returns the whole report as JSON, with name and digest of the source.

    Args:
      report: report of the conversion.
      files: the files read; several are listed one by one.
      kind: kind of the file.
      base: files that the weights were added to; listed as base/NAME.
    """
    digests = {}
    named = [(path.name, path) for path in files]
    named += [(f"base/{path.name}", path) for path in base]
    for name, path in named:
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    (name, digest), *more = digests.items()
    content = {
        **({"files": digests} if more else {"source": name, "sha256": digest}),
        "kind": kind,
        "notes": report.notes,
        "used": report.used,
        "dropped": report.dropped,
        "new": report.new,
    }
    return json.dumps(content, indent=1) + "\n"


def modules_of(paths: Iterable[str]) -> list[str]:
    """Returns the modules that contain the arrays, with their numbers."""
    modules = ("/".join(path.split("/")[1:4]) for path in paths)
    return [f"{kind} {count}" for kind, count in _kinds(modules).items()]


def _kinds(names: Iterable[str]) -> Counter[str]:
    return Counter(re.sub(r"\d+", "*", name) for name in names)

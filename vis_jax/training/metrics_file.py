"""`metrics.jsonl` of a run: one JSON line per step and group of metrics."""

import json
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from vis_jax.formats.disk import naming, replacing
from vis_jax.paths import is_remote
from vis_jax.training.logger import Logger

METRICS_FILE = "metrics.jsonl"
COPY_EVERY = 60.0  # seconds between copies to a bucket
_OWN = ("step", "time")  # fields of a line that are not metrics


class MetricsFile(Logger):
    """Appends lines `{"step": 20, "time": 1764.., "train/loss": 2.5, ..}`.

    A resumed run rewrites the lines of its steps: lines of later steps left by a killed
    run are dropped, and each step has one line per group. `time` is in seconds since
    1970; non-finite values are null. A file in a bucket is copied once a minute and at
    the end.

    Args:
      workdir: folder of the run; the file is created with the first line.
    """

    def __init__(self, workdir: str) -> None:
        self._path = epath.Path(workdir) / METRICS_FILE
        self._in_bucket = is_remote(workdir)
        self._lines: list[dict[str, Any]] = []
        self._old: set[tuple[int, str]] = set()  # existing lines that may be rewritten
        self._begun = False
        self._written = time.monotonic()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if not values:
            return
        line: dict[str, Any] = {"step": step, "time": round(time.time(), 3)}
        line |= {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        again = self._begin(step, line)
        self._lines.append(line)
        if self._in_bucket:
            if again or time.monotonic() - self._written > COPY_EVERY:
                self._write_all()
        elif again:
            self._write_all()
        else:
            self._append(_text(line))

    def close(self) -> None:
        if self._begun and self._in_bucket:
            self._write_all()

    def _begin(self, step: int, line: Mapping[str, Any]) -> bool:
        """Drops lines the new one supersedes; returns whether to rewrite the file."""
        key, before = (step, group_of(line)), len(self._lines)
        if not self._begun:
            self._begun = True
            found = read_metrics(self._path) if self._path.exists() else []
            self._lines = [one for one in found if one["step"] <= step]
            self._old = {(one["step"], group_of(one)) for one in self._lines}
            before = -1  # the last line may be truncated, too
        if key in self._old:
            self._old.remove(key)
            self._lines = [
                one for one in self._lines if (one["step"], group_of(one)) != key
            ]
        return len(self._lines) != before

    def _append(self, text: str) -> None:
        with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(text)

    def _write_all(self) -> None:
        """Rewrites the file atomically with all lines."""
        text = "".join(map(_text, self._lines))
        self._written = time.monotonic()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._in_bucket:
            self._path.write_text(text)
            return
        with replacing(self._path) as file:
            file.write(text)


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads the lines of a file, ignoring a truncated last one.

    Raises:
      ValueError: any other line is not JSON with a step; names file and line.
      OSError: it cannot be read.
    """
    lines = epath.Path(path).read_bytes().splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line)
            if not isinstance(one, dict) or type(one.get("step")) is not int:
                raise ValueError(f"expected an object with a step, got {one!r:.60}")
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{os.fspath(path)}, line {number}: {error}") from error
        found.append(one)
    return found


def group_of(line: Mapping[str, Any]) -> str:
    """Returns the group of a line, e.g. "train" if it has train/loss."""
    names = [name for name in line if name not in _OWN]
    return names[0].partition("/")[0] if names else ""


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"

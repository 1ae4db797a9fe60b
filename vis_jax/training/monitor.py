"""Collects update metrics without blocking the device."""

import time
from typing import NamedTuple

import jax
import numpy as np

from vis_jax.training.step import StepMetrics

# Updates that may be queued on the device. Two keep it busy; more would only hold more
# batches in memory.
QUEUED = 2


class NonFiniteLossError(ValueError):
    """The loss, one of its terms or its gradient is infinite or NaN."""


class Summary(NamedTuple):
    """Mean metrics over several updates."""

    values: dict[str, float]  # loss, terms, gradient norm, learning rate, speeds
    notes: dict[str, float]  # see `LossAux`


class Monitor:
    """Collects the metrics of each update and checks them when asked."""

    def __init__(self, *, clips_per_step: int) -> None:
        self._clips_per_step = clips_per_step
        self._unread: list[tuple[int, StepMetrics]] = []
        self._rows: list[dict[str, float]] = []
        self._notes: list[dict[str, float]] = []
        self._latest: dict[str, float] = {}
        self._since: float | None = None  # None until the first update is done
        self._timed = 0  # updates since then

    def add(self, step: int, metrics: StepMetrics) -> None:
        """Adds the metrics of update `step`, counted from 1."""
        self._unread.append((step, metrics))
        if self._since is None:  # excluded from speeds, as the first update compiles
            jax.block_until_ready(metrics.loss)
            self._since = time.monotonic()
            return
        self._timed += 1
        if len(self._unread) > QUEUED:
            jax.block_until_ready(self._unread[-1 - QUEUED][1].loss)

    def check(self) -> None:
        """Reads all metrics added so far.

        Raises:
          NonFiniteLossError: names the first non-finite step and term.
        """
        unread, self._unread = jax.device_get(self._unread), []
        for step, metrics in unread:
            row = {**metrics.terms, "loss": metrics.loss}
            row["gradient_norm"] = metrics.gradient_norm
            for name, value in row.items():
                if not np.isfinite(value):
                    what = f"loss term {name!r}" if name in metrics.terms else name
                    raise NonFiniteLossError(f"step {step}: {what} is {value}")
            row["learning_rate"] = metrics.learning_rate
            self._latest = {name: float(value) for name, value in row.items()}
            self._rows.append(self._latest)
            self._notes.append({name: float(x) for name, x in metrics.notes.items()})

    def latest(self) -> dict[str, float]:
        """Returns the metrics of the last update.

        Raises:
          NonFiniteLossError: see `check`.
        """
        self.check()
        return self._latest

    def summary(self) -> Summary:
        """Returns means since the last summary, and speeds without the first update.

        Raises:
          NonFiniteLossError: see `check`.
        """
        self.check()
        rows, self._rows = self._rows, []
        notes, self._notes = self._notes, []
        timed, self._timed = self._timed, 0
        now = time.monotonic()
        seconds, self._since = now - (self._since or now), now
        steps_per_second = timed / max(seconds, 1e-9)
        speeds = {
            "steps_per_second": steps_per_second,
            "clips_per_second": steps_per_second * self._clips_per_step,
        }
        return Summary(_means(rows) | speeds, _means(notes))


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

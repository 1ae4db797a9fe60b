"""Metrics of the updates, read from the device without making it wait."""

import time
from typing import NamedTuple

import jax
import numpy as np

from vis_jax.training.step import StepMetrics

# Updates that may be queued on the device. Two keep it busy; more would only pile up
# batches in its memory.
QUEUED = 2


class NonFiniteLossError(ValueError):
    """The loss, one of its terms or its gradient is infinite or not a number."""


class Summary(NamedTuple):
    """Means over some updates."""

    values: dict[str, float]  # loss, its terms, gradient norm, rate, speeds
    notes: dict[str, float]  # of `LossAux`


class Monitor:
    """Collects the metrics of each update and checks them when asked."""

    def __init__(self, *, clips_per_step: int) -> None:
        self._clips_per_step = clips_per_step
        self._unread: list[tuple[int, StepMetrics]] = []
        self._rows: list[dict[str, float]] = []
        self._notes: list[dict[str, float]] = []
        self._latest: dict[str, float] = {}
        self._since: float | None = None  # None: the first update is not done
        self._timed = 0  # updates since then

    def add(self, step: int, metrics: StepMetrics) -> None:
        """Notes the metrics of update `step`, the first being 1."""
        self._unread.append((step, metrics))
        if self._since is None:  # the first update is slow: it waits for the compiler
            jax.block_until_ready(metrics.loss)
            self._since = time.monotonic()
            return
        self._timed += 1
        if len(self._unread) > QUEUED:
            jax.block_until_ready(self._unread[-1 - QUEUED][1].loss)

    def check(self) -> None:
        """Reads all metrics noted so far.

        Raises:
          NonFiniteLossError: with the first step and the first term that is not
            finite.
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
        """The metrics of the last update.

        Raises:
          NonFiniteLossError: see `check`.
        """
        self.check()
        return self._latest

    def summary(self) -> Summary:
        """Means since the last summary, and speeds that leave out the first update.

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

"""Keeps the best checkpoint of a run by an evaluation metric."""

import json
import math
from collections.abc import Collection, Mapping

import jax
from etils import epath

from vis_jax.paths import copy_folder, is_remote
from vis_jax.training.checkpoint import FOLDER

BEST, RECORD = "best", "best.json"


class Best:
    """Maintains `workdir/best`, the checkpoint with the highest metric so far.

    Args:
      workdir: folder of the run; a resumed run compares with the checkpoint kept there.
      metric: "AP" for the evaluation on `test`, "NAME/AP" for evals.NAME; "" keeps no
        checkpoint.
      known: metric names by evaluation name ("" for the one on `test`); empty if known
        only after evaluating.

    Raises:
      ValueError: there is no such evaluation, or it has no such metric.
    """

    def __init__(
        self, workdir: str, metric: str, known: Mapping[str, Collection[str]]
    ) -> None:
        check_metric(metric, known)
        self.metric = metric
        self._workdir, self._folder = epath.Path(workdir), epath.Path(workdir) / BEST
        self._temporary = self._folder.with_name(f"{BEST}.tmp")
        self._in_bucket = is_remote(workdir)
        self._value = -math.inf
        whole = (self._temporary / RECORD).exists()  # the record is written last
        replaced = not self._in_bucket and self._folder.exists()
        if whole and not replaced and jax.process_index() == 0:
            self._publish()  # the run was killed before publishing
        if metric and (self._folder / RECORD).exists():
            self._value = _value_of(self._folder / RECORD, metric)

    def offer(self, step: int, values: dict[str, float]) -> bool:
        """Copies the checkpoint of a step if its metric beats all earlier ones.

        Args:
          step: step with a complete checkpoint.
          values: metrics of one evaluation, with prefix "NAME/" for evals.NAME.

        Returns:
          True if the checkpoint was copied.

        Raises:
          ValueError: the evaluation lacks the metric.
        """
        prefix = self.metric.rpartition("/")[0]
        mine = {k for k in values if k.rpartition("/")[0] == prefix}
        if not self.metric or not mine:
            return False
        if self.metric not in mine:
            raise ValueError(
                f"train.best: expected one of {sorted(mine)}, got {self.metric!r}"
            )
        if not values[self.metric] > self._value:
            return False
        self._value = values[self.metric]
        if self._temporary.exists():  # left by a killed run
            self._temporary.rmtree()
        copy_folder(self._workdir / FOLDER / str(step), self._temporary)
        record = {"metric": self.metric, "value": self._value, "step": step}
        (self._temporary / RECORD).write_text(json.dumps(record) + "\n")
        self._publish()
        return True

    def _publish(self) -> None:
        """Renames the copy to its final name; repeatable where that is not atomic."""
        if self._folder.exists():
            self._folder.rmtree()
        if not self._in_bucket:
            self._temporary.rename(self._folder)
            return
        copy_folder(self._temporary, self._folder, last=RECORD)
        (self._temporary / RECORD).unlink()  # first, to mark the rest incomplete
        self._temporary.rmtree()


def check_metric(metric: str, known: Mapping[str, Collection[str]]) -> None:
    """Raises ValueError unless an evaluation has the metric; see `Best`."""
    name, _, bare = metric.rpartition("/")
    if metric and name not in known:
        names = sorted(filter(None, known))
        raise ValueError(
            "train.best: expected METRIC, of the evaluation on test, or"
            f" NAME/METRIC with one of evals, {names}, got {metric!r}"
        )
    if metric and known[name] and bare not in known[name]:
        prefix = f"{name}/" if name else ""
        expected = [f"{prefix}{one}" for one in known[name]]
        raise ValueError(f"train.best: expected one of {expected}, got {metric!r}")


def _value_of(record: epath.Path, metric: str) -> float:
    """Returns the recorded value of a metric; -inf if the record is of another."""
    try:
        found = json.loads(record.read_text())
        return float(found["value"]) if found["metric"] == metric else -math.inf
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{record}: expected the metric and value of the best checkpoint, or no"
            f" such folder: {error}"
        ) from error

"""Schedules the evaluations of a run and handles their metrics."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from vis_jax.training.best import BEST, Best
from vis_jax.training.preemption import has_company
from vis_jax.training.run import Run
from vis_jax.training.sharding import whole
from vis_jax.training.state import TrainState
from vis_jax.training.writer import Writer


class Evaluation(NamedTuple):
    """One evaluation of a run; each also runs at the end.

    Attributes:
      name: key in `evals`; "" for the evaluation on `test`.
      every: interval in updates; 0 = at the end only.
      score: (variables, step) -> metrics; empty in processes other than the first.
      metrics: names of metrics that can rank checkpoints, higher being better; empty:
        not known before `score` runs.
    """

    name: str
    every: int
    score: Callable[[dict, int], dict[str, float]]
    metrics: Collection[str] = ()


class Evaluations:
    """Runs evaluations when due, and keeps the best checkpoint.

    Args:
      evaluations: in running order.
      run: the run; has a checkpoint of the step if `needs_checkpoint`.
      best: the best checkpoint of the run.
      writer: receives the metrics.
    """

    def __init__(
        self,
        evaluations: Sequence[Evaluation],
        *,
        run: Run,
        best: Best,
        writer: Writer,
    ) -> None:
        self._evaluations, self._training = evaluations, run
        self._best, self._writer = best, writer

    def needs_checkpoint(self, step: int) -> bool:
        """Returns whether this step needs a checkpoint because it is evaluated.

        The step may turn out to be the best. Also, multi-process runs ignore signals
        during an evaluation, so the scheduler may kill them; they then resume here.
        """
        return bool((self._best.metric or has_company()) and self._due(step))

    def run_due(self, state: TrainState, step: int) -> None:
        """Runs the evaluations that are due after update `step`.

        Raises:
          ValueError: see `Best.offer`.
          StopNow: a signal arrived; a resumed run repeats the evaluation.
        """
        for evaluation in self._due(step):
            self._run(evaluation, state, step)

    def run_all(self, state: TrainState, step: int) -> None:
        """Runs every evaluation, at the end of a run.

        Raises:
          ValueError: see `Best.offer`.
          StopNow: a signal arrived; a resumed run repeats the evaluation.
        """
        for evaluation in self._evaluations:
            self._run(evaluation, state, step)

    def _due(self, step: int) -> list[Evaluation]:
        return [one for one in self._evaluations if due(step, one.every)]

    def _run(self, evaluation: Evaluation, state: TrainState, step: int) -> None:
        name, best = evaluation.name, self._best
        with self._training.notice.at_once():
            metrics = evaluation.score(whole(state.evaluated), step)
        self._writer.scalars(step, metrics, group=f"eval_{name}" if name else "eval")
        if not best.metric:
            return
        self._training.checkpoints.wait()
        prefix = f"{name}/" if name else ""
        if best.offer(step, {f"{prefix}{key}": x for key, x in metrics.items()}):
            self._writer.message(
                f"step {step}: best {best.metric} so far, kept in {BEST}/"
            )


def due(step: int, every: int) -> bool:
    """Returns whether `step` is a multiple of `every`; False if `every` is 0."""
    return every > 0 and step % every == 0

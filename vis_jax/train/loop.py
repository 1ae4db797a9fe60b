"""The order of events in a run."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from vis_jax.systems.system import System
from vis_jax.train import profile
from vis_jax.train.best import BEST, Best
from vis_jax.train.checkpoint import Checkpoints
from vis_jax.train.overview import parameter_table
from vis_jax.train.run import HostBatch, MakeBatches, open_run
from vis_jax.train.run_config import RunSettings
from vis_jax.train.state import TrainState
from vis_jax.train.writer import Writer, open_writer


class Evaluation(NamedTuple):
    """One of the evaluations of a run; all take place at the end, too.

    Attributes:
      name: "" for that on `test`, else that of `evals`.
      every: updates from one to the next; 0 = at the end only.
      score: (variables, step) -> metrics; nothing in processes other than the first.
    """

    name: str
    every: int
    score: Callable[[dict, int], dict[str, float]]


def train(
    config: RunSettings,
    system: System,
    make_batches: MakeBatches,
    workdir: str,
    *,
    evaluations: Sequence[Evaluation] = (),
    draw: Callable[[dict, HostBatch, int], dict[str, np.ndarray]] | None = None,
    writer: Writer | None = None,
    window: profile.Window | None = None,
) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from the start.

    Stopped and started again, it ends in the same state as if it had not been. After a
    SIGTERM it saves and exits with code 0.

    Args:
      config: of the run.
      system: what is trained.
      make_batches: (batches to leave out) -> this process's share of each batch.
      workdir: receives config.json, checkpoints and TensorBoard files.
      evaluations: what is measured, and when.
      draw: (variables, batch, step) -> images; every `train.image_every` steps.
      writer: receives scalars and images; None: TensorBoard and a line of progress.
      window: updates to profile.

    Raises:
      ValueError: on another model in `workdir`, too few batches, a loss that is not
        finite (NonFiniteLossError), an unwritable disk (CheckpointError).
      SystemExit: with code 0, after a SIGTERM.
    """
    every, last = config.train, config.num_steps
    writer = writer or open_writer(workdir, num_steps=last)
    best = Best(workdir, every.best, [one.name for one in evaluations])
    with ExitStack() as stack:
        run = stack.enter_context(
            open_run(config, system, make_batches, workdir=workdir, writer=writer)
        )
        folder = os.path.join(workdir, profile.FOLDER)
        mark = stack.enter_context(profile.profiled(window, folder))
        state, monitor = run.state, run.monitor
        writer.message(parameter_table(state.variables["params"], config.optimizer))
        for step in range(run.start + 1, last + 1):
            host, batch = next(run.batches)
            mark(step, state)
            state, metrics = run.update(state, batch)
            monitor.add(step, metrics)
            leave = run.preempted(step)
            due_now = [one for one in evaluations if due(step, one.every)]
            if due(step, every.log_every) or step == last:
                writer.progress(step, monitor.summary())
            if draw and due(step, every.image_every):
                writer.images(step, draw(state.variables, host, step))
            save = due(step, every.checkpoint_every) or bool(due_now and best.metric)
            if save or step == last or leave:
                run.checkpoints.save(state, monitor.latest())
            if leave:
                run.checkpoints.wait()
                writer.message(f"SIGTERM: saved step {step}; start again to go on")
                raise SystemExit(0)
            if step < last:
                for one in due_now:
                    evaluate(one, state, step, run.checkpoints, writer, best)
        for one in evaluations:
            evaluate(one, state, last, run.checkpoints, writer, best)
    return state


def evaluate(
    one: Evaluation,
    state: TrainState,
    step: int,
    checkpoints: Checkpoints,
    writer: Writer,
    best: Best,
) -> None:
    """Scores the parameters, and keeps their checkpoint if it is the best so far."""
    values = one.score(state.variables, step)
    writer.scalars(step, values, group=f"eval_{one.name}" if one.name else "eval")
    if best.metric:
        checkpoints.wait()
        prefix = f"{one.name}/" if one.name else ""
        if best.offer(step, {f"{prefix}{name}": x for name, x in values.items()}):
            writer.message(f"step {step}: best {best.metric} so far, kept in {BEST}/")


def due(step: int, every: int) -> bool:
    """True at multiples of `every`; never if it is 0."""
    return every > 0 and step % every == 0

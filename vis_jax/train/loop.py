"""The order of events in a run."""

import os
from collections.abc import Callable, Sequence

import numpy as np

from vis_jax.systems.system import System
from vis_jax.train import profile
from vis_jax.train.best import Best
from vis_jax.train.evaluations import Evaluation, Evaluations, due
from vis_jax.train.overview import parameter_table
from vis_jax.train.run import HostBatch, MakeBatches, open_run
from vis_jax.train.run_config import RunSettings
from vis_jax.train.state import TrainState
from vis_jax.train.writer import Writer, open_writer


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
    trace_folder = os.path.join(workdir, profile.FOLDER)
    with (
        open_run(config, system, make_batches, workdir=workdir, writer=writer) as run,
        profile.profiled(window, trace_folder) as before_update,
    ):
        state, monitor, checkpoints = run.state, run.monitor, run.checkpoints
        scored = Evaluations(
            evaluations, best=best, checkpoints=checkpoints, writer=writer
        )
        writer.message(parameter_table(state.variables["params"], config.optimizer))
        if 0 < run.start < last:  # what a SIGTERM at this step has left out
            scored.run_due(state, run.start)
        for step in range(run.start + 1, last + 1):
            host, batch = next(run.batches)
            before_update(step, state)
            state, metrics = run.update(state, batch)
            monitor.add(step, metrics)
            leave = run.preempted(step)
            if due(step, every.log_every) or step == last:
                writer.progress(step, monitor.summary())
            if draw and due(step, every.image_every):
                writer.images(step, draw(state.variables, host, step))
            save = due(step, every.checkpoint_every) or scored.needs_checkpoint(step)
            if save or step == last or leave:
                checkpoints.save(state, monitor.latest())
            if leave:
                checkpoints.wait()
                writer.message(f"SIGTERM: saved step {step}; start again to go on")
                raise SystemExit(0)
            if step < last:
                scored.run_due(state, step)
        scored.run_all(state, last)
    return state

"""The order of events in a run."""

import os
from collections.abc import Callable, Sequence

import jax
import numpy as np

from vis_jax.systems.system import System
from vis_jax.training import profile
from vis_jax.training.best import Best
from vis_jax.training.evaluations import Evaluation, Evaluations, due
from vis_jax.training.optimizer import parameter_table
from vis_jax.training.phases import first_update
from vis_jax.training.preemption import StopNow, how_to_go_on, no_more_steps
from vis_jax.training.run import HostBatch, MakeBatches, Run, open_run
from vis_jax.training.run_config import RunSettings
from vis_jax.training.sharding import whole
from vis_jax.training.state import TrainState
from vis_jax.training.together import leave_others
from vis_jax.training.writer import Writer, open_writer

# (variables, batch, step) -> images by name, uint8 [H, W, 3]
Draw = Callable[[dict, HostBatch, int], dict[str, np.ndarray]]


def train(
    config: RunSettings,
    system: System,
    make_batches: MakeBatches,
    workdir: str,
    *,
    evaluations: Sequence[Evaluation] = (),
    draw: Draw | None = None,
    writer: Writer | None = None,
    window: profile.Window | None = None,
    accept_changes: bool = False,
) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from the start.

    Stopped and started again, it ends in the same state as if it had not been. After
    SIGTERM or SIGUSR1 it saves and exits with code 143, after Ctrl-C with 130.

    Args:
      config: of the run.
      system: what is trained.
      make_batches: (batches to leave out) -> this process's share of each batch.
      workdir: receives config.json, checkpoints, metrics.jsonl and TensorBoard files.
      evaluations: what is measured, and when.
      draw: (variables, batch, step) -> images; every `train.image_every` steps.
      writer: receives scalars and images; None: metrics.jsonl, `train.loggers` and a
        line of progress.
      window: updates to profile.
      accept_changes: goes on with settings that end in another state than those that
        the run began with; see `vis_jax.training.changes`.

    Raises:
      ValueError: on another model in `workdir`, too few batches, a loss that is not
        finite (NonFiniteLossError), a `train.best` that no evaluation has, an
        unwritable disk (CheckpointError), another run on `workdir` (WorkdirInUseError),
        settings that differ from those of the run.
      SystemExit: with code 143 after SIGTERM or SIGUSR1, 130 after Ctrl-C.
    """
    writer = writer or open_writer(workdir, config)
    metrics = {one.name: one.metrics for one in evaluations}
    best = Best(workdir, config.train.best, metrics)
    opened = open_run(
        config, system, make_batches, workdir=workdir, writer=writer,
        accept_changes=accept_changes,
    )  # fmt: skip
    trace = profile.profiled(window, os.path.join(workdir, profile.FOLDER))
    with opened as run, trace as before_update:
        writer.message(parameter_table(run.state.variables["params"], config.optimizer))
        scored = Evaluations(evaluations, run=run, best=best, writer=writer)
        return _run_updates(config, run, scored, writer, draw, before_update)


def _run_updates(
    config: RunSettings,
    run: Run,
    scored: Evaluations,
    writer: Writer,
    draw: Draw | None,
    before_update: Callable[[int, TrainState], None],
) -> TrainState:
    """The updates from where the run is to its end, and what is due between them."""
    every, last = config.train, config.num_steps
    state, monitor = run.state, run.monitor
    try:
        if 0 < run.start < last:  # what a signal at this step has left out
            scored.run_due(state, run.start)
        for step in range(run.start + 1, last + 1):
            host, batch = next(run.batches)
            before_update(step, state)
            with first_update(writer.phase, step, run.start + 1):
                state, metrics = run.update(state, batch)
                monitor.add(step, metrics)
            leave = run.notice.reached(step)
            if due(step, every.log_every) or step == last:
                writer.progress(step, *monitor.summary())
            if draw and due(step, every.image_every):
                writer.images(step, draw(whole(state.evaluated), host, step))
            save = due(step, every.checkpoint_every)
            if save or step == last or leave or scored.needs_checkpoint(step):
                run.checkpoints.save(state, monitor.latest())
            if leave:
                raise StopNow
            if step < last:
                scored.run_due(state, step)
        run.checkpoints.wait()
        no_more_steps(run.notice)
        scored.run_all(state, last)
    except StopNow:
        end_early(run, state, writer)
    return state


def end_early(run: Run, state: TrainState, writer: Writer) -> None:
    """Saves if that step is not saved yet, and ends the process with a signal's code.

    Raises:
      SystemExit: always.
    """
    step = int(state.step)
    notice = run.notice
    text = f"{notice.name}: saved step {step}; {how_to_go_on(run.workdir)}"
    if notice.last and jax.process_count() > 1:  # all is saved, and the others wait
        writer.message(text)
        writer.close()
        leave_others(text, notice.code)
    run.checkpoints.wait()
    if run.checkpoints.latest_step() != step:
        run.checkpoints.save(state, run.monitor.latest())
        run.checkpoints.wait()
    writer.message(text)
    raise SystemExit(notice.code)

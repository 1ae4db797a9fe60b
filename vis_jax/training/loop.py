"""The training loop."""

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
from vis_jax.training.run_config import LoopSettings
from vis_jax.training.sharding import whole
from vis_jax.training.state import TrainState
from vis_jax.training.together import leave_others
from vis_jax.training.writer import Writer, open_writer

# (variables, batch, step) -> images by name, uint8 [H, W, 3]
Draw = Callable[[dict, HostBatch, int], dict[str, np.ndarray]]


def train(
    config: LoopSettings,
    system: System,
    make_batches: MakeBatches,
    workdir: str,
    *,
    evaluations: Sequence[Evaluation] = (),
    draw: Draw | None = None,
    writer: Writer | None = None,
    window: profile.ProfileWindow | None = None,
    accept_changes: bool = False,
    check: Callable[[dict], None] | None = None,
) -> TrainState:
    """Trains from the newest checkpoint in `workdir`, or from scratch.

    A stopped and resumed run ends in the same state as an unbroken one. SIGTERM and
    SIGUSR1 save and exit with code 143, Ctrl-C with 130.

    Args:
      config: config of the run.
      system: system to train.
      make_batches: (batches to skip) -> this process's share of each batch.
      workdir: receives config.json, checkpoints, metrics.jsonl and TensorBoard files.
      evaluations: evaluations and their schedules.
      draw: (variables, batch, step) -> images; every `train.image_every` steps.
      writer: receives scalars and images; None: as `open_writer` returns it.
      window: updates to profile.
      accept_changes: resume although decisive settings have changed; see
        `vis_jax.training.changes`.
      check: called with the variables before the first update; may raise ValueError.

    Raises:
      ValueError: `workdir` has another model, other settings or another active run
        (WorkdirInUseError), batches run out, the loss is not finite
        (NonFiniteLossError), no evaluation has `train.best`, or a checkpoint cannot be
        written (CheckpointError).
      SystemExit: with code 143 after SIGTERM or SIGUSR1, 130 after Ctrl-C.
    """
    writer = writer or open_writer(workdir, config)
    metrics = {one.name: one.metrics for one in evaluations}
    best = Best(workdir, config.train.best, metrics)
    opened = open_run(
        config, system, make_batches, workdir=workdir, writer=writer,
        accept_changes=accept_changes, check=check,
    )  # fmt: skip
    trace = profile.profiled(window, os.path.join(workdir, profile.FOLDER))
    with opened as run, trace as before_update:
        writer.message(parameter_table(run.state.variables["params"], config.optimizer))
        scored = Evaluations(evaluations, run=run, best=best, writer=writer)
        return _run_updates(config, run, scored, writer, draw, before_update)


def _run_updates(
    config: LoopSettings,
    run: Run,
    scored: Evaluations,
    writer: Writer,
    draw: Draw | None,
    before_update: Callable[[int, TrainState], None],
) -> TrainState:
    """Runs the remaining updates, with evaluations, logging and checkpoints."""
    every, last = config.train, config.num_steps
    state, monitor = run.state, run.monitor
    try:
        if 0 < run.start < last:  # evaluations skipped because of a signal at this step
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
    """Saves the state if not yet saved, and exits with the code of the signal.

    Raises:
      SystemExit: always.
    """
    step = int(state.step)
    notice = run.notice
    text = f"{notice.name}: saved step {step}; {how_to_go_on(run.workdir)}"
    if notice.last and jax.process_count() > 1:  # all saved; the others are waiting
        writer.message(text)
        writer.close()
        leave_others(text, notice.code)
    run.checkpoints.wait()
    if run.checkpoints.latest_step() != step:
        run.checkpoints.save(state, run.monitor.latest())
        run.checkpoints.wait()
    writer.message(text)
    raise SystemExit(notice.code)

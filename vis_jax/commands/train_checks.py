"""Checks of the settings of a training, before data are opened."""

import dataclasses
from typing import TYPE_CHECKING

from etils import epath

from vis_jax.commands import parts

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.structures import Batch
    from vis_jax.systems.system import System


def check_settings(
    config: "RunSettings", workdir: str, *, accept_changes: bool = False
) -> None:
    """Checks settings for these devices and this workdir, before data are opened.

    Raises:
      ValueError: a logger, schedule, regex, metric, mesh, batch size, number of
        microbatches, checkpoint, canvas or chunk is invalid; settings of the system are
        inconsistent; rules leave out a parameter or match none; or the run in the
        workdir cannot resume with them, see `vis_jax.training.run.check_resumed`.
    """
    from vis_jax.params import check_regexes
    from vis_jax.scoring import METRICS
    from vis_jax.training.accumulate import check_microbatches
    from vis_jax.training.best import check_metric
    from vis_jax.training.checkpoint import check_there, newest_step
    from vis_jax.training.loggers import check_loggers
    from vis_jax.training.optimizer import check_schedule
    from vis_jax.training.sharding import make_mesh

    check_loggers(config.train.loggers)
    check_schedule(config.optimizer, config.num_steps)
    check_regexes("init_fresh", config.init_fresh)
    check_metric(config.train.best, dict.fromkeys(["", *config.evals], METRICS))
    devices, clips = make_mesh(config.mesh).size, config.data.batch_size
    if clips % devices:
        raise ValueError(
            f"data.batch_size: expected a multiple of {devices}, the devices of this"
            f" run, got {clips}"
        )
    check_microbatches(config.train.accumulate, clips, devices=devices)
    start = newest_step(workdir)
    if start:
        _check_resumed(config, workdir, start, accept=accept_changes)
    elif config.init_from:  # not read on resuming
        check_there(config.init_from)
    if config.model.num_classes:  # otherwise the data sets it
        _check_rules(config, training_system(config), new=not start)


def training_system(config: "RunSettings") -> "System":
    """Builds the system for training.

    Raises:
      ValueError: its settings are inconsistent, or it cannot train on these clips.
    """
    system = parts.build_system(config)
    multiple, frames = system.window.multiple, config.data.frames
    if any(side % multiple for side in config.data.canvas):
        raise ValueError(
            f"data.canvas: expected multiples of {multiple} pixels, got"
            f" {config.data.canvas}"
        )
    if system.chunk and frames % system.chunk:
        raise ValueError(
            f"loss.chunk: expected a divisor of data.frames, {frames}, got"
            f" {system.chunk}"
        )
    return system


def training_shapes(config: "RunSettings", system: "System", *, clips: int) -> "Batch":
    """Returns the shapes of a batch, with stored features if the run reads them.

    Args:
      config: config of the run.
      system: its system.
      clips: number of clips.
    """
    from vis_jax.training.dry_run import batch_shapes
    from vis_jax.training.features import with_features

    data = config.data
    height, width = data.canvas
    batch = batch_shapes(B=clips, T=data.frames, M=data.instances, H=height, W=width)
    if data.features:
        return with_features(batch, parts.frozen_encoder(system), system)
    return batch


def _check_resumed(
    config: "RunSettings", workdir: str, start: int, *, accept: bool
) -> None:
    """Checks the settings of a resumed run; the run itself prints the changes."""
    from vis_jax.training.run import check_resumed

    named = (epath.Path(workdir) / parts.CATEGORIES_FILE).exists()
    if named and not config.model.num_classes:  # set by the data, not yet opened
        count = len(parts.read_categories(workdir))
        model = dataclasses.replace(config.model, num_classes=count)
        config = dataclasses.replace(config, model=model)
    check_resumed(config, workdir, start=start, accept=accept, say=lambda line: None)


def _check_rules(config: "RunSettings", system: "System", *, new: bool) -> None:
    """Checks that the rules of the optimiser and the mesh fit the parameters.

    This traces the model, which takes seconds, so it is skipped if all rules must fit,
    and for moving shapes, which open at once, so that the run soon checks them itself.
    """
    from vis_jax.training.initial import check_rules, make_plan
    from vis_jax.training.sharding import make_mesh

    multipliers = (*config.optimizer.rates, *config.optimizer.decays)
    fit = all(pattern == ".*" for pattern, _ in multipliers)
    fit = fit and not (config.optimizer.late or config.mesh.rules)
    if fit or config.data.name == "moving_shapes":
        return
    batch = training_shapes(config, system, clips=config.data.batch_size)
    plan = make_plan(config, system, batch, make_mesh(config.mesh))
    if new:
        check_rules(config, plan.like.variables)

"""Checkpoints: written atomically, and restored only into a matching model.

A run keeps them in `workdir/checkpoints/<step>/` with the items `variables`,
`optimizer` (including step and random key), `metrics` (a JSON file) and, with
`train.ema`, `average`, which `load_variables` returns in place of the averaged values.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vis_jax.checkpoints import find_weights
from vis_jax.paths import absolute
from vis_jax.training.damage import (
    describe_damage,
    put_broken_metrics_aside,
    quieten_orbax,
)
from vis_jax.training.distributed import all_agree, wait_for_all
from vis_jax.training.model_folder import kind_of, no_weights
from vis_jax.training.state import TrainState, start_average
from vis_jax.training.tree_check import Check, MismatchError, check_same_tree
from vis_jax.training.weights_file import read_weights

FOLDER, AVERAGE = "checkpoints", "average"
DAMAGED = "damaged"  # sibling folder for unreadable steps


class CheckpointError(ValueError):
    """A checkpoint cannot be written, found or read."""


class Checkpoints:
    """The newest checkpoints of a run; as a context, waits for the last write."""

    def __init__(self, workdir: str, *, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"train.keep: expected at least 1 checkpoint, got {keep}")
        quieten_orbax()
        self._writing_step = 0
        folder = absolute(workdir) / FOLDER
        if jax.process_index() == 0:
            for line in put_broken_metrics_aside(folder):
                _to_stderr(line)
        wait_for_all("metrics of checkpoints checked")
        self._manager = ocp.CheckpointManager(
            folder,
            item_handlers=_handlers(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(keep),
                cleanup_tmp_directories=True,  # left by a killed run
            ),
        )

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Writes the state in the background, after any earlier write.

        Raises:
          CheckpointError: if this write or the previous one fails.
        """
        step = int(state.step)
        self.wait()
        self._writing_step = step
        optimizer = _optimizer_item(state, jax.random.key_data(state.rng))
        items: dict[str, ocp.args.CheckpointArgs] = {
            "variables": ocp.args.StandardSave(state.variables),
            "optimizer": ocp.args.StandardSave(optimizer),
            "metrics": ocp.args.JsonSave(metrics),
        }
        if state.average is not None:
            items[AVERAGE] = ocp.args.StandardSave(state.average)
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**items))

    def wait(self) -> None:
        """Waits until all writes are done.

        Raises:
          CheckpointError: if the last write failed.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def restore_newest(
        self, like: TrainState, *, say: Callable[[str], None] | None = None
    ) -> TrainState | None:
        """Restores the newest readable step; None if there is no checkpoint.

        Newer, damaged steps are moved to `damaged/` beside `checkpoints/`, so that the
        run can write them again.

        Args:
          like: shapes, dtypes and shardings of the state.
          say: receives a line for each skipped step; default: stderr of the first
            process.

        Raises:
          CheckpointError: if there are checkpoints, but none can be read.
          MismatchError: if the parameters of the newest one differ from `like`.
        """
        failures: dict[int, ValueError] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state = self.restore(step, like)
            except (CheckpointError, MismatchError) as error:
                failures[step] = error
            if all_agree(step not in failures):
                self._set_aside(failures, step, say or _to_stderr)
                return state
            failures.setdefault(step, CheckpointError("another process cannot read it"))
        if not failures:
            return None
        newest = next(iter(failures.values()))
        if isinstance(newest, MismatchError):  # all steps of a run share one model
            raise newest
        reasons = "; ".join(str(error) for error in failures.values())
        raise CheckpointError(f"no checkpoint of this run can be read: {reasons}")

    def _set_aside(
        self, failures: dict[int, ValueError], step: int, say: Callable[[str], None]
    ) -> None:
        """Moves damaged steps away, in the first process, and reports them."""
        if not failures:
            return
        folder = self._manager.directory
        for number, error in failures.items():
            if jax.process_index() > 0:
                break
            target = _unused(folder.parent / DAMAGED / str(number))
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / str(number)).rename(target)
            reason = str(error).splitlines()[0]
            say(f"{reason}; moved to {target}, going on from step {step}")
        wait_for_all("damaged checkpoints moved")
        self._manager.reload()

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Restores the state of a step, even if written on another mesh.

        If the checkpoint has no average but `like` does, it starts at the variables.

        Args:
          step: step with a complete checkpoint.
          like: shapes, dtypes and shardings of the state.

        Raises:
          CheckpointError: if it cannot be read.
          MismatchError: if its parameters differ from `like`.
        """
        path = self._manager.directory / str(step)
        with _reading(path):  # not via the manager, which also reads the metrics
            found = _handlers()["variables"].metadata(path / "variables").tree
        check_same_tree(found, like.variables, name=f"checkpoint {path}")
        key = jax.eval_shape(jax.random.key_data, like.rng)
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=like.rng.sharding)
        wanted = {
            "variables": ocp.args.StandardRestore(like.variables),
            "optimizer": ocp.args.StandardRestore(_optimizer_item(like, key)),
        }
        if like.average is not None and (path / AVERAGE).exists():
            wanted[AVERAGE] = ocp.args.StandardRestore(like.average)
        with _reading(path):
            items = self._manager.restore(step, args=ocp.args.Composite(**wanted))
        average = items[AVERAGE] if AVERAGE in wanted else None
        if like.average is not None and average is None:
            average = start_average(items.variables)
        return TrainState(
            step=items.optimizer["step"],
            variables=items.variables,
            opt_state=items.optimizer["opt_state"],
            rng=jax.random.wrap_key_data(items.optimizer["rng"]),
            average=average,
        )

    def preempted(self, step: int) -> bool:
        """Returns True in all processes at the same step after a SIGTERM in any."""
        return self._manager.reached_preemption(step)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._writing():
                self._manager.close()
        except CheckpointError:
            if error is None:  # otherwise the pending error explains the end of the run
                raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax re-raises file-system errors
            folder = self._manager.directory
            raise CheckpointError(
                f"step {self._writing_step}: cannot write the checkpoint:"
                f" {_reason(error)}; complete ones in {folder}:"
                f" {sorted(ocp.utils.checkpoint_steps(folder))}"
            ) from error


def load_variables(
    path: str | os.PathLike, check: Check | None = None
) -> dict[str, dict]:
    """Loads the variables of a checkpoint into host memory, without optimiser state.

    Returns the average if the run keeps one (`train.ema`).

    Args:
      path: a run's workdir or its folder of checkpoints (the newest one is read), or
        the folder of one step, or the output of `save_variables`, `write_weights` or
        `export`, or a name for `find_weights`.
      check: called with the variables; for a weights file, with those of its header
        before their values are read.

    Raises:
      CheckpointError: if there is no checkpoint, or it cannot be read.
      ValueError: see `find_weights`.
    """
    path = find_weights(path)
    if check_there(path) == "safetensors":
        return read_weights(path, check)
    quieten_orbax()
    folder = _find(absolute(path))
    if not (folder / "variables").exists():
        raise CheckpointError(f"{folder}: cannot be read: variables: not found")
    with (
        _reading(folder),
        ocp.Checkpointer(ocp.CompositeCheckpointHandler(**_handlers())) as checkpointer,
    ):
        stored = checkpointer.metadata(folder).item_metadata
        names = [name for name in ("variables", AVERAGE) if (folder / name).exists()]
        wanted = {
            name: ocp.args.StandardRestore(_empty(stored[name])) for name in names
        }
        items = checkpointer.restore(folder, args=ocp.args.Composite(**wanted))
    found = {**items.variables, **(items[AVERAGE] if AVERAGE in names else {})}
    if check is not None:
        check(found)
    return found


def check_there(path: str | os.PathLike) -> str:
    """Returns the kind of checkpoint `load_variables` would read, without reading it.

    Raises:
      CheckpointError: there is no checkpoint.
      ValueError: see `find_weights`.
    """
    path = find_weights(path)
    kind = kind_of(path)
    if kind == "checkpoint":
        _find(absolute(path))
    elif kind != "safetensors":
        raise CheckpointError(f"{path}: {no_weights(path, kind)}")
    return kind


def step_of(path: str | os.PathLike) -> int | None:
    """Returns the step of the checkpoint `load_variables` reads, if its path has one.

    Raises:
      CheckpointError: there is no checkpoint.
      ValueError: see `find_weights`.
    """
    path = find_weights(path)
    if kind_of(path) != "checkpoint":
        return None
    name = _find(absolute(path)).name
    return int(name) if name.isdecimal() else None


def newest_step(workdir: str) -> int:
    """Returns the step of the newest checkpoint of a run; 0 if there is none."""
    folder = absolute(workdir) / FOLDER
    return max(ocp.utils.checkpoint_steps(folder), default=0) if folder.exists() else 0


def save_variables(path: str | os.PathLike, variables: dict[str, dict]) -> None:
    """Writes variables for `load_variables` and `config.init_from`.

    Raises:
      CheckpointError: if the folder exists.
    """
    folder = absolute(path)
    if folder.exists():
        raise CheckpointError(f"{folder} exists")
    with ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(**_handlers())
    ) as checkpointer:
        item = ocp.args.StandardSave(jax.tree.map(np.asarray, variables))
        checkpointer.save(folder, args=ocp.args.Composite(variables=item))


def _handlers() -> dict[str, ocp.CheckpointHandler]:
    return {
        "variables": ocp.StandardCheckpointHandler(),
        "optimizer": ocp.StandardCheckpointHandler(),
        AVERAGE: ocp.StandardCheckpointHandler(),
        "metrics": ocp.JsonCheckpointHandler(),
    }


def _empty(metadata: Any) -> dict:
    """Allocates host arrays to read an item into."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), metadata.tree)


def _find(path: epath.Path) -> epath.Path:
    if (path / "variables").exists():
        return path
    folder = path / FOLDER if (path / FOLDER).exists() else path
    steps = ocp.utils.checkpoint_steps(folder)
    if not steps:
        raise CheckpointError(
            f"{path}: no checkpoint; expected a workdir, its folder {FOLDER!r} or the"
            " folder of one step"
        )
    return folder / str(max(steps))


@contextmanager
def _reading(path: epath.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Orbax has no error type for damaged files
        reason = describe_damage(error, path)
        raise CheckpointError(f"{path}: cannot be read: {reason}") from error


def _optimizer_item(state: TrainState, key: object) -> dict[str, object]:
    return {"step": state.step, "opt_state": state.opt_state, "rng": key}


def _reason(error: BaseException) -> str:
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
        return "no space left on the disk"
    return text.splitlines()[0] if text else type(error).__name__


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _unused(path: epath.Path) -> epath.Path:
    """Returns the path, with a number appended if it exists."""
    found, number = path, 0
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found

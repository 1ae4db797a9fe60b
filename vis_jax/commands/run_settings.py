"""Settings of a run, including those of its system."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

from data_pipeline.settings import Settings as DataSettings
from vis_jax.settings import Natural, read_settings, section
from vis_jax.systems import SYSTEMS
from vis_jax.systems.system import TestSettings
from vis_jax.training.run_config import LoopSettings

# Fields of `data` that select the videos of a data set.
EVALUATED = ("name", "root", "split", "held_out", "held_out_share", "shapes")


@section
class EvaluationSettings:
    """`evals.NAME`: a further evaluation; unset fields are as in the config."""

    every: Natural = 0  # updates between evaluations; 0 = at the end only
    # Overrides of `data` that select the videos: name, root, split, held_out,
    # held_out_share, shapes.
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Overrides of `test`.
    test: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@section
class RunSettings(LoopSettings):
    """Settings of every system; each adds its `model`, `loss` and `compute_dtype`."""

    system: str  # method to train
    data: DataSettings  # training data
    test: TestSettings = TestSettings()  # evaluation
    model: Any  # the network
    # Further evaluations by name: every, data, test; see docs/training.md.
    evals: Mapping[str, EvaluationSettings] = dataclasses.field(default_factory=dict)


def read_run(values: Mapping) -> RunSettings:
    """Reads the settings of a config.

    Args:
      values: a config, possibly partial; missing fields take their defaults.

    Raises:
      ValueError: a field is unknown, missing or out of range.
    """
    run = read_settings(_kind(values.get("system")), values)
    for name in run.evals:
        if not re.fullmatch(r"(?!step_)[A-Za-z]\w*", name):  # names a folder
            raise ValueError(
                "evals: expected names that begin with a letter, not with step_, and go"
                f" on with letters, digits or _, got {name!r}"
            )
        of_evaluation(run, name)  # raises if one of its fields is wrong
    return run


def of_evaluation(run: RunSettings, name: str) -> RunSettings:
    """Returns the settings of one of `evals`, with its own data set and `test`.

    Raises:
      ValueError: a field that it sets is unknown, out of range, or about training
        clips.
    """
    one, where = run.evals[name], f"evals.{name}"
    data = read_settings(type(run.data), one.data, f"{where}.data", base=run.data)
    for field in one.data:
        if field not in EVALUATED:
            raise ValueError(
                f"{where}.data.{field}: expected one of {sorted(EVALUATED)}, as the"
                " others change nothing but the clips to train on"
            )
    test = read_settings(type(run.test), one.test, f"{where}.test", base=run.test)
    return dataclasses.replace(run, data=data, test=test)


def with_classes(run: RunSettings, count: int) -> RunSettings:
    """Sets the number of classes from the data set if the config leaves it open.

    Raises:
      ValueError: the config has another number.
    """
    found = run.model.num_classes
    if found not in (0, count):
        raise ValueError(
            f"model.num_classes: expected {count}, the categories of the data set, got"
            f" {found}"
        )
    model = dataclasses.replace(run.model, num_classes=count)
    return dataclasses.replace(run, model=model)


def _kind(system: Any) -> type[RunSettings]:
    if not isinstance(system, str) or system not in SYSTEMS:
        raise ValueError(f"system: expected one of {sorted(SYSTEMS)}, got {system!r}")
    return _combined(system)


@functools.cache
def _combined(system: str) -> type[RunSettings]:
    """Returns the settings class of a system, combined with the common ones."""
    kind = SYSTEMS[system].settings
    return section(type(kind.__name__, (kind, RunSettings), {"__doc__": kind.__doc__}))

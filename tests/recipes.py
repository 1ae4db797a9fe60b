"""Settings of the recipes in configs/, with changes by field."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.settings import Settings as DataSettings
from vis_jax.commands.config_names import SHARED
from vis_jax.commands.run_settings import RunSettings, read_run
from vis_jax.settings import read_settings, to_dict

_FOLDER = Path(__file__).parents[1] / "configs"
NAMES = sorted(p.stem for p in _FOLDER.glob("*.py") if p.stem not in SHARED)

# MaskProp with a single stage and no optional branch: half the work to compile it.
ONE_STAGE = {
    "model.stages": dict(iou=(0.5,), centre_std=(0.1,), side_std=(0.2,), weight=(1.0,)),
    "model.semantic.enabled": False,
    "model.track_head.width": 0,
    "model.propagation.dilations": (1,),
}


def recipe(
    name: str, arg: str | None = "debug", changes: Mapping[str, Any] | None = None
) -> RunSettings:
    """Returns settings of `configs/NAME.py:ARG` with `changes` by path, as data.flip.

    The changes become part of the recipe, and are read like a user's.
    """
    config = importlib.import_module(f"configs.{name}").get_config(arg).to_dict()
    return read_run(_with(config, changes or {}))


def changed(run: RunSettings, changes: Mapping[str, Any]) -> RunSettings:
    """Returns settings with `changes` by path."""
    return read_run(_with(to_dict(run), changes))


def data_settings(**fields: Any) -> DataSettings:
    """Returns the section `data`."""
    return read_settings(DataSettings, fields, "data")


def _with(config: dict, changes: Mapping[str, Any]) -> dict:
    for path, value in changes.items():
        *parents, name = path.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return config

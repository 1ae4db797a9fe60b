"""Detects settings that changed between the stop and the resumption of a run."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from etils import epath

from vis_jax.settings import CONFIG_FILE, read_settings, to_dict

# Settings that affect random numbers, clips or gradients: changing them makes a
# resumed run differ from an unbroken one.
DECISIVE = (
    *("seed", "system", "compute_dtype", "model", "loss", "data"),
    *("train.accumulate", "train.ema"),
)
# Settings that do not affect the clips: where files are and what reads them.
HARMLESS = ("data.root", "data.joint.root", "data.joint.evaluate", "data.stills.root")
KIND = "optimizer.kind"  # optimiser state cannot be reused by another kind

_NONE = object()


class Change(NamedTuple):
    """A changed field, with its old and new value as JSON."""

    name: str
    before: str
    after: str


class ChangedSettingsError(ValueError):
    """Settings differ from those the run began with."""


def check_changes(
    config: Any, workdir: str, *, accept: bool, say: Callable[[str], None]
) -> None:
    """Reports differences from the config saved in the workdir.

    Args:
      config: settings of the resumed run.
      workdir: folder of the run; without a config.json the check passes.
      accept: whether decisive settings may differ.
      say: receives a line per changed setting.

    Raises:
      ChangedSettingsError: a decisive setting differs and that is not accepted, or the
        optimiser differs.
      ValueError: config.json cannot be read, and `accept` is not set; names it.
    """
    path = epath.Path(workdir) / CONFIG_FILE
    if not path.exists():
        return
    try:
        saved = _filled(type(config), json.loads(path.read_text()))
        found = differences(saved, as_saved(config))
    except (ValueError, RecursionError) as error:
        text = f"{path}: cannot be compared with the settings: {error}"
        if not accept:
            raise ValueError(f"{text}; --accept_changes skips this check") from error
        say(text)
        return
    changed = [one.name for one in found]
    lines = [f"{one.name}: {one.before} -> {one.after}" for one in found]
    for line in lines:
        say(f"setting changed  {line}")
    if KIND in changed:
        line = lines[changed.index(KIND)]
        raise ChangedSettingsError(
            f"{line}: a run cannot go on with another optimizer; start one in another"
            f" --workdir with init_from={workdir}"
        )
    decisive = [
        line for name, line in zip(changed, lines, strict=True) if is_decisive(name)
    ]
    if decisive and not accept:
        raise ChangedSettingsError(
            f"{path}: the run in this workdir has other settings:"
            f" {'; '.join(decisive)}; set them back, choose another --workdir, or go"
            " on with --accept_changes"
        )


def as_saved(config: Any) -> dict:
    """Converts settings to the form read from a config.json."""
    fields: dict = json.loads(json.dumps(to_dict(config)))
    return fields


def differences(before: dict, after: dict) -> list[Change]:
    """Lists the fields in which two configs differ.

    Args:
      before, after: configs in the form of config.json.
    """
    saved, wanted = _flat(before), _flat(after)
    names = [*wanted, *(name for name in saved if name not in wanted)]
    return [
        Change(name, _show(saved, name), _show(wanted, name))
        for name in names
        if saved.get(name, _NONE) != wanted.get(name, _NONE)
    ]


def is_decisive(name: str) -> bool:
    """Returns whether changing a setting changes the final state of a resumed run."""
    if name in HARMLESS:
        return False
    return any(name == one or name.startswith(f"{one}.") for one in DECISIVE)


def _filled(kind: type, values: Any) -> Any:
    """Fills in defaults of fields added since a config was saved."""
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, got {type(values).__name__}")
    try:
        return as_saved(read_settings(kind, values))
    except ValueError:  # config of another system or version
        return values


def _flat(values: Any, where: str = "") -> dict[str, Any]:
    if not isinstance(values, dict) or not values:
        return {where: values}
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{where}.{name}" if where else name)
    return found


def _show(values: dict, name: str) -> str:
    return json.dumps(values[name]) if name in values else "not set"

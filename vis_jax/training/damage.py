"""Diagnosis of a checkpoint that cannot be read, in a few words.

Orbax passes on what its JSON parser and TensorStore raise: without the file, or with a
page of settings around it.
"""

import json
import logging
import re
import sys
from typing import TYPE_CHECKING

from etils import epath

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

JSON_FILES = ("_METADATA", "_sharding", "array_metadatas/*")  # of an item
LONGEST = 200  # characters of a reason
_FILE = re.compile(r'local file "([^"]+)"')
_CODE = re.compile(r"^[A-Z_]+: ")
_NOISE = ("Failed to json parse Metadata file", "Metadata file does not exist")


def describe_damage(error: BaseException, folder: epath.Path) -> str:
    """`FILE: REASON`, with the file relative to the folder of the step.

    Args:
      error: that came while the checkpoint was read.
      folder: of its step.
    """
    found = _broken_json(folder)
    if found is not None:
        return found
    text = (str(error) or type(error).__name__).splitlines()[0]
    text = text.partition(" [tensorstore_spec")[0].partition(" [source locations")[0]
    files = _FILE.findall(text)
    if not files:
        return text[:LONGEST]
    reason = text.rpartition('": ')[2] if '": ' in text else ""
    if _FILE.search(reason) or not reason:  # nothing follows the name of the file
        code = _CODE.match(text)
        reason = code[0][:-2].lower().replace("_", " ") if code else "cannot be read"
    name = files[-1].rstrip("/").removeprefix(f"{folder}/")
    return f"{name}: {reason[:LONGEST]}"


def _broken_json(folder: epath.Path) -> str | None:
    """The first item without its description, or file of one that is not JSON."""
    for item in ("variables", "optimizer", "average"):
        if not (folder / item).exists():
            continue
        if not (folder / item / "_METADATA").exists():
            return f"{item}/_METADATA: no such file"
        for pattern in JSON_FILES:
            for path in sorted((folder / item).glob(pattern)):
                try:
                    json.loads(path.read_bytes())
                except (ValueError, RecursionError) as error:
                    name = path.relative_to(folder)
                    return f"{name}: expected JSON, got {str(error)[:LONGEST]}"
    return None


def put_broken_metrics_aside(folder: epath.Path) -> list[str]:
    """Renames metrics that are not JSON: Orbax would end a run for them.

    Args:
      folder: of the checkpoints of a run.

    Returns:
      A line for each.
    """
    lines = []
    for path in sorted(folder.glob("*/metrics/metrics")):
        try:
            json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            target = path.with_name("metrics.damaged")
            path.replace(target)
            reason = str(error)[:LONGEST]
            lines.append(f"{path}: expected JSON, got {reason}; now {target.name}")
    return lines


def quieten_orbax() -> None:
    """Silences what Orbax and TensorStore print about an error that they raise, too.

    Orbax logs it with a trace in each of its threads. Threads of TensorStore outlive
    the event loop of what failed, and each of them prints that it is closed.
    """
    logger = logging.getLogger("absl")
    if _not_raised_too not in logger.filters:
        logger.addFilter(_not_raised_too)
    before = sys.unraisablehook
    if getattr(before, "skips_closed_loops", False):
        return

    def hook(unraisable: "UnraisableHookArgs") -> None:
        text = str(unraisable.exc_value)
        if "Event loop is closed" not in text and "TensorStore" not in text:
            before(unraisable)

    hook.skips_closed_loops = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _not_raised_too(record: logging.LogRecord) -> bool:
    """Whether a record says more than an error of Orbax that is raised as well."""
    if "orbax" not in record.pathname:
        return True
    return not record.exc_info and not str(record.msg).startswith(_NOISE)

"""Short diagnoses of unreadable checkpoints.

Orbax re-raises errors of its JSON parser and TensorStore, which lack the file name or
include a page of settings.
"""

import json
import logging
import re
import sys
from typing import TYPE_CHECKING

from etils import epath

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

JSON_FILES = ("_METADATA", "_sharding", "array_metadatas/*")  # in the folder of an item
LONGEST = 200  # maximum characters of a reason
_FILE = re.compile(r'local file "([^"]+)"')
_CODE = re.compile(r"^[A-Z_]+: ")
_NOISE = ("Failed to json parse Metadata file", "Metadata file does not exist")


def describe_damage(error: BaseException, folder: epath.Path) -> str:
    """Returns "FILE: REASON", with the file relative to the folder of the step.

    Args:
      error: raised while reading the checkpoint.
      folder: folder of the step.
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
    if _FILE.search(reason) or not reason:  # nothing follows the file name
        code = _CODE.match(text)
        reason = code[0][:-2].lower().replace("_", " ") if code else "cannot be read"
    name = files[-1].rstrip("/").removeprefix(f"{folder}/")
    return f"{name}: {reason[:LONGEST]}"


def _broken_json(folder: epath.Path) -> str | None:
    """Returns the first item without metadata, or metadata file that is not JSON."""
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
    """Renames metrics files that are not JSON, which would make Orbax fail.

    Args:
      folder: checkpoint folder of a run.

    Returns:
      A line for each renamed file.
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
    """Silences logs of Orbax and TensorStore about errors that they also raise.

    Orbax logs a traceback in each of its threads. TensorStore threads outlive the event
    loop of the failed call, and each prints that it is closed.
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
    """Returns whether a log record is more than an Orbax error that is also raised."""
    if "orbax" not in record.pathname:
        return True
    return not record.exc_info and not str(record.msg).startswith(_NOISE)

"""Checks which flags of a command may name a folder in a bucket."""

import os
from collections.abc import Iterator, Sequence

from vis_jax.paths import check_folder, on_disk

DATA = ("config.data.root", "config.data.joint.root")
# Other flags and commands take files that are opened directly.
REMOTE = {
    "train": ("workdir", "config.init_from", *DATA),
    "evaluate": ("workdir", "checkpoint", "output", *DATA),
    "compare": ("workdir", "checkpoint", *DATA),
    "predict": ("workdir", "checkpoint", "output"),
    "config": ("workdir", "config.init_from", *DATA),
    "convert": ("output",),
    "export": ("workdir", "checkpoint", "output"),
}
OTHERS = {"predict": ("source",)}  # checked where they are read


def check_paths(command: str, arguments: Sequence[str], *, rest: str = "") -> None:
    """Checks every flag whose value is an address.

    Args:
      command: name of the command.
      arguments: its arguments.
      rest: flag that collects the words that belong to no flag.

    Raises:
      ValueError: the flag needs a local path, or the scheme of the address is not
        supported; names the flag.
    """
    for name, value in _flags(arguments, rest):
        if "://" not in value or name in OTHERS.get(command, ()):
            continue
        if name in REMOTE.get(command, ()):
            check_folder(f"--{name}", value)
        else:
            on_disk(f"--{name}", value)


def at_home(word: str) -> str:
    """Expands ~ in a word of the command line.

    A shell expands it at the start of a word, but not after --name=.
    """
    name, sign, value = word.partition("=")
    if not name.startswith("--") or not value.startswith("~"):
        return os.path.expanduser(word)
    return f"{name}{sign}{os.path.expanduser(value)}"


def _flags(arguments: Sequence[str], rest: str) -> Iterator[tuple[str, str]]:
    """Yields names and values of `--name=value` and `--name value`."""
    before = rest
    for word in arguments:
        name, sign, value = word.partition("=")
        if name.startswith("-"):
            before = name.lstrip("-")
            if sign:
                yield before, value
                before = rest
        elif before:
            yield before, word
            before = rest

"""Which flags of a command may name a folder in a bucket."""

import os
from collections.abc import Iterator, Sequence

from vis_jax.paths import check_folder, on_disk

DATA = ("config.data.root", "config.data.joint.root")
# The rest, and all of other commands, is files that programs open by themselves.
REMOTE = {
    "train": ("workdir", "config.init_from", *DATA),
    "evaluate": ("workdir", "checkpoint", "output", *DATA),
    "compare": ("workdir", "checkpoint", *DATA),
    "predict": ("workdir", "checkpoint", "output"),
    "config": ("workdir", "config.init_from", *DATA),
    "convert": ("output",),
    "export": ("workdir", "checkpoint"),
}
OTHERS = {"predict": ("source",)}  # checked where they are read


def check_paths(command: str, arguments: Sequence[str]) -> None:
    """Checks every flag whose value is an address.

    Args:
      command: its name.
      arguments: the words behind it.

    Raises:
      ValueError: the command needs a file on a disk there, or the address is of a kind
        that nothing reads; names the flag.
    """
    for name, value in _flags(arguments):
        if "://" not in value or name in OTHERS.get(command, ()):
            continue
        if name in REMOTE.get(command, ()):
            check_folder(f"--{name}", value)
        else:
            on_disk(f"--{name}", value)


def at_home(word: str) -> str:
    """A word of the command line in which ~ is the user's home.

    A shell replaces it at the beginning of a word, but not behind --name=.
    """
    name, sign, value = word.partition("=")
    if not name.startswith("--") or not value.startswith("~"):
        return os.path.expanduser(word)
    return f"{name}{sign}{os.path.expanduser(value)}"


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values, of `--name=value` and of `--name value`."""
    before = ""
    for word in arguments:
        name, sign, value = word.partition("=")
        if name.startswith("-"):
            before = name.lstrip("-")
            if sign:
                yield before, value
        elif before:
            yield before, word

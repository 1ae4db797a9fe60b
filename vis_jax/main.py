"""The command line: `python -m vis_jax.main [command] --flags`.

No command means train. A mistake of the user ends with one line on stderr and exit
code 2; set VIS_JAX_TRACEBACK=1 to see where it came from.
"""

import importlib
import os
import sys

from absl import flags

COMMANDS = {
    "train": "train a system, evaluate it at the end (the default command)",
    "evaluate": "predict every video of a data set and score the result",
    "predict": "find and track the objects of one video",
    "score": "score a results.json against an annotation file",
    "data": "make and inspect data sets",
}

USAGE = """vis_jax: video instance segmentation in JAX

usage: python -m vis_jax.main [command] --flags

commands:
{commands}

examples:
  python -m vis_jax.main --config configs/ifr_shapes.py --workdir runs/shapes
  python -m vis_jax.main predict --workdir runs/shapes --source video.mp4 --output out

`python -m vis_jax.main COMMAND --help` explains the flags of a command.
"""


def main(argv: list[str]) -> int:
    """Runs a command; returns the exit code."""
    name, arguments = split_command(argv)
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        return fail(f"command {name!r}: expected one of {known}")
    if not argv or argv[0] in ("help", "--help", "-h"):
        print(usage())
        return 0
    command = importlib.import_module(f"vis_jax.commands.{name}")
    try:
        return run(command, arguments)
    except (ValueError, flags.Error, OSError) as error:
        if os.environ.get("VIS_JAX_TRACEBACK"):
            raise
        return fail(explain(error))
    except KeyboardInterrupt:
        return fail("interrupted", code=130)


def run(command, arguments: list[str]) -> int:
    """Parses the flags of one command and runs it."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    if any(argument in ("--help", "-h", "-help") for argument in arguments):
        command.define(values, [])
        print(f"{command.__doc__.strip()}\n\nflags:\n{values.get_help()}")
        return 0
    command.define(values, arguments)
    try:
        rest = values(["vis_jax", *arguments])[1:]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"--config: {error.args[0] if error.args else error}") from error
    if rest and not getattr(command, "TAKES_WORDS", False):
        raise ValueError(f"unexpected words on the command line: {' '.join(rest)}")
    return command.run(values, rest) or 0


def split_command(argv: list[str]) -> tuple[str, list[str]]:
    """The command and what follows; train if the first word is a flag."""
    if not argv or argv[0].startswith("-") or argv[0] == "help":
        return "train", argv
    return argv[0], argv[1:]


def usage() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    return USAGE.format(commands="\n".join(lines))


def explain(error: BaseException) -> str:
    """What went wrong in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and not isinstance(error, ValueError) and not text:
        text = type(error).__name__
    return text


def fail(message: str, code: int = 2) -> int:
    """Says what is wrong on stderr."""
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

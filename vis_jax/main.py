"""The command line: `python -m vis_jax.main [command] --flags`.

The default command is train. User errors print one line on stderr and exit with code
2; set VIS_JAX_TRACEBACK=1 for a traceback.
"""

import atexit
import importlib
import os
import sys

from absl import flags

from data_pipeline.errors import printable
from vis_jax import __version__
from vis_jax.commands.path_flags import at_home, check_paths

# Each is a module of vis_jax.commands, named with underscores for spaces.
COMMANDS = {
    "train": "train a system and evaluate it at the end (the default command)",
    "evaluate": "predict every video of a data set and score the result",
    "compare": "run every tracker and the oracles on one set of detections",
    "predict": "detect and track the objects of one or many videos",
    "config": "print every field of a config with its meaning, default and range",
    "configs list": "list the recipes that --config takes by name",
    "runs plot": "draw the curves of runs as an image and a page",
    "runs diff": "print the settings in which two runs differ",
    "sweep": "train a config with several seeds and summarise the scores",
    "doctor": "report what this machine and this installation can do",
    "completion": "print shell completion of commands and flags for bash or zsh",
    "score": "score a results.json against an annotation file",
    "convert": "convert published weights to a checkpoint",
    "export": "export a trained model for other programs",
    "data make_shapes": "write moving shapes as a YouTube-VIS folder",
    "data extract": "extract frames of videos as image files, for labelling",
    "data prepare": "convert DAVIS, MOTS, COCO, CVAT, labelme .. to YouTube-VIS format",
    "data check": "list every defect of a folder in YouTube-VIS format",
    "data build_tfds": "pack a YouTube-VIS folder into a few large files, for pods",
    "data split": "hold out some videos for validation",
    "data cache_features": "store a frozen encoder's features of the training videos",
    "data pack": "check a results.json and pack it for an evaluation server",
}

# Commands with positional arguments, and the list flag that collects them.
WITH_WORDS = {
    **{"predict": "source", "score": "results"},
    **{"runs diff": "workdirs", "runs plot": "workdirs"},
}

USAGE = """vis_jax: video instance segmentation in JAX

usage: python -m vis_jax.main [command] --flags

commands:
{commands}

examples:
  python -m vis_jax.main --config configs/ifr_shapes.py --workdir runs/shapes
  python -m vis_jax.main predict --workdir runs/shapes --source video.mp4 --output out

`python -m vis_jax.main COMMAND --help` explains the flags of a command; `--version`
prints the version.
"""

# Import names of dependencies of vis_jax that are not in requirements-score.txt.
WHOLE = (
    *("av", "beartype", "defusedxml", "flatbuffers", "flax", "jax", "jaxtyping"),
    *("ml_collections", "optax", "orbax", "tensorboardX", "tensorflow"),
    *("tensorflow_datasets", "yaml"),
)

HELP = ("help", "--help", "-help", "-h")
WIDTH = 80  # columns of the help

# Silences TensorFlow and XLA logs that would hide our own errors on stderr, unless the
# user has set these variables.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}

# Exit codes after Ctrl-C and after a scheduler's signal.
SIGNALLED = (130, 143)


def main(argv: list[str]) -> int:
    """Runs a command; returns the exit code."""
    quieten()
    try:
        return run(argv)
    except BrokenPipeError:  # the reader has closed the pipe, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, flags.Error, OSError) as error:
        if os.environ.get("VIS_JAX_TRACEBACK"):
            raise
        return fail(explain(error))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in WHOLE:
            raise
        return fail(f"{lacking(argv, error)}: pip install vis_jax")
    except KeyboardInterrupt:
        return fail("interrupted", code=130)


def console() -> None:
    """Entry point of the script `vis-jax`; exits with the exit code.

    After a signal the process ends with the signal's code once all exit handlers have
    run: when a compilation was interrupted, freeing what is left can crash in XLA, and
    a scheduler would read the code of the crash.
    """
    stopped: list[int] = []
    atexit.register(_end_at_once, stopped)  # before all others: runs last
    try:
        sys.exit(main(sys.argv[1:]))
    except SystemExit as error:
        if error.code in SIGNALLED:
            stopped.append(error.code)
        raise


def _end_at_once(codes: list[int]) -> None:
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


def quieten() -> None:
    """Silences TensorFlow and XLA logs, if they are not loaded yet."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def run(argv: list[str]) -> int:
    """Parses the flags of a command and runs it, or shows the help."""
    if argv == ["--version"]:
        print(f"vis_jax {__version__}")
        return 0
    if not argv or argv[0] in HELP:
        print(USAGE.format(commands=listing(list(COMMANDS))))
        return 0
    wants_help = any(word in HELP[1:] for word in argv)
    if wants_help and members(argv[0]) and argv[1] in HELP:
        print(f"commands:\n{listing(members(argv[0]))}")
        return 0
    name, arguments = split_command(argv)
    command = importlib.import_module("vis_jax.commands." + name.replace(" ", "_"))
    arguments = [at_home(word) for word in arguments]
    if not wants_help:
        check_paths(name, arguments, rest=WITH_WORDS.get(name, ""))
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    command.define(values, [] if wants_help else arguments)
    if wants_help:
        print(f"{(command.__doc__ or '').strip()}\n\nflags:\n{flag_help(values)}")
        return 0
    rest = values(["vis_jax", *arguments])[1:]
    if rest and name in WITH_WORDS:
        flag = values[WITH_WORDS[name]]
        flag.value = [*(flag.value or []), *rest]
    elif rest:
        raise ValueError(f"unexpected words on the command line: {' '.join(rest)}")
    command.run(values)
    return 0


def lacking(argv: list[str], error: ModuleNotFoundError) -> str:
    """Describes the missing package if only the scoring requirements are installed."""
    name, _ = split_command(argv)
    return f"{name} needs {error.name}, which is not installed"


def split_command(argv: list[str]) -> tuple[str, list[str]]:
    """Splits arguments into the command and the rest; train if a flag comes first.

    Raises:
      ValueError: there is no such command.
    """
    if argv[0].startswith("-"):
        return "train", argv
    for count in (1, 2):
        name = " ".join(argv[:count])
        if name in COMMANDS:
            return name, argv[count:]
    known = ", ".join(members(argv[0]) or COMMANDS)
    got = " ".join(argv[: 2 if members(argv[0]) else 1])
    raise ValueError(f"command {got!r}: expected one of {known}")


def members(word: str) -> list[str]:
    """Returns the two-word commands that start with this word."""
    return [name for name in COMMANDS if name.startswith(f"{word} ")]


def listing(names: list[str]) -> str:
    """Lists the commands, one per line."""
    return "\n".join(f"  {name:<20}{COMMANDS[name]}" for name in names)


def flag_help(values: flags.FlagValues) -> str:
    """Formats the help of the flags, by name, with their defaults."""
    lines = []
    for name in sorted(set(values) - {"flagfile", "undefok"}):
        flag = values[name]
        default = f" (default: {flag.default})" if flag.default is not None else ""
        text = f"--{'[no]' if flag.boolean else ''}{name}: {flag.help}{default}"
        lines.append(flags.text_wrap(text, WIDTH, "      ", "  "))
    return "\n".join(lines)


def explain(error: BaseException) -> str:
    """Describes an error in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def fail(message: str, code: int = 2) -> int:
    """Prints an error on stderr; returns the exit code."""
    print(f"error: {printable(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    console()

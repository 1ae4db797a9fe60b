"""Commands as a user runs them, in this process."""

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from types import ModuleType
from typing import NamedTuple

from absl import flags

from vis_jax.main import main


class Outcome(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def call(*words: object) -> Outcome:
    """Runs `python -m vis_jax.main` with these words."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


def error_of(*words: object) -> str:
    """The one line that a command prints which ends with code 2."""
    outcome = call(*words)
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: "), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    return outcome.err.strip().removeprefix("error: ")


def check_words(command: ModuleType, words: list[str]) -> None:
    """Reads the flags of a command, and does not run it."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    command.define(values, words)
    assert values(["vis_jax", *words])[1:] == []

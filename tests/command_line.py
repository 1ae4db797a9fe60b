"""Runs commands like a user, in this process."""

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from types import ModuleType
from typing import NamedTuple

from absl import flags

from vis_jax.main import main


class Outcome(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def call(*words: object) -> Outcome:
    """Runs `python -m vis_jax.main` with these arguments."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


def error_of(*words: object) -> str:
    """Runs a command that must fail with code 2; returns its one-line message."""
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

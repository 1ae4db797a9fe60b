"""Runs tests on a copy of the working tree."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.mutants.faults import ROOT


class Outcome(NamedTuple):
    """Outcome of a test run."""

    code: int  # pytest's, or TIMED_OUT
    seconds: float
    output: str

    @property
    def noticed_by(self) -> str:
        """First failed test, or else the outcome of the run."""
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", self.output, re.MULTILINE)
        if found:
            return found[1]
        return "timed out" if self.code == TIMED_OUT else f"exit code {self.code}"


PASSED = 0
TIMED_OUT = -1000  # pytest's codes are positive, signals small negative numbers
# A test failed, or a module could not be imported.
_NOTICED = (1, 2, TIMED_OUT)


def is_noticed(outcome: Outcome) -> bool:
    """Returns whether tests failed or crashed; False if all passed.

    Raises:
      RuntimeError: pytest itself failed.
    """
    if outcome.code == PASSED:
        return False
    if outcome.code in _NOTICED or outcome.code < 0:
        return True
    raise RuntimeError(f"pytest ended with {outcome.code}:\n{outcome.output}")


@contextlib.contextmanager
def copied_tree(root: Path = ROOT) -> Iterator[Path]:
    """Yields a copy of all current files under version control; removes it at the end.

    Raises:
      RuntimeError: the tree is not a Git repository.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True
    )
    if listed.returncode:
        raise RuntimeError(f"{root}: git ls-files: {listed.stderr.strip()}")
    with TemporaryDirectory(prefix="vis_jax_mutant_") as folder:
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():  # skips deleted files
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, target)
        yield Path(folder)


def run_tests(
    tree: Path, tests: tuple[str, ...], *, limit: float, cache: Path
) -> Outcome:
    """Runs test files of a tree in a new process, up to the first failure.

    Args:
      limit: time limit in seconds.
      cache: folder of compiled programs, shared by all runs.
    """
    options = ("-x", "-q", "-n", "0", "-rfE", "--no-header")
    environment = {"JAX_COMPILATION_CACHE_DIR": str(cache)} | os.environ
    # Imports the copy, not the installed package, also in subprocesses of tests.
    environment["PYTHONPATH"] = str(tree)
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
        code = process.returncode
    except subprocess.TimeoutExpired:
        output, code = "", TIMED_OUT
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return Outcome(code, time.monotonic() - begin, output)

"""Tests run on a copy of the working tree."""

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
    """How a run of tests ended."""

    code: int  # pytest's, or TIMED_OUT
    seconds: float
    output: str

    @property
    def noticed_by(self) -> str:
        """The first test that failed, or how else the run ended."""
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", self.output, re.MULTILINE)
        if found:
            return found[1]
        return "timed out" if self.code == TIMED_OUT else f"exit code {self.code}"


PASSED = 0
TIMED_OUT = -1000  # pytest's codes are above, signals are small
# A test failed, a module could not be imported.
_NOTICED = (1, 2, TIMED_OUT)


def is_noticed(outcome: Outcome) -> bool:
    """Whether tests failed, also by a crash; False if they all passed.

    Raises:
      RuntimeError: pytest itself did not work.
    """
    if outcome.code == PASSED:
        return False
    if outcome.code in _NOTICED or outcome.code < 0:
        return True
    raise RuntimeError(f"pytest ended with {outcome.code}:\n{outcome.output}")


@contextlib.contextmanager
def copied_tree(root: Path = ROOT) -> Iterator[Path]:
    """A copy of all files under version control, as they are now; removed at the end.

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
            if (root / name).is_file():  # not one that is deleted
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, target)
        yield Path(folder)


def run_tests(
    tree: Path, tests: tuple[str, ...], *, limit: float, cache: Path
) -> Outcome:
    """Runs test files of a tree, up to the first failure, in a process of their own.

    Args:
      limit: seconds after which the tests are stopped.
      cache: folder of compiled programs that runs share.
    """
    options = ("-x", "-q", "-n", "0", "-rfE", "--no-header")
    environment = {"JAX_COMPILATION_CACHE_DIR": str(cache)} | os.environ
    # The copy, not what is installed; also in the processes that tests start.
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

"""Runs the toy system in separate processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 150  # on a busy machine


def start(options: dict) -> subprocess.Popen:
    """Starts a run with this process's compiler flags.

    Other flags could change rounding, and resumed runs are compared bit by bit.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.toy_run", json.dumps(options)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes: subprocess.Popen, code: int = 0) -> list[dict]:
    """Returns the output of each process; fails with its errors on other exit codes."""
    try:
        return [_report(process, code) for process in processes]
    finally:  # after a failure, the others would wait forever
        for process in processes:
            process.kill()
            process.wait()


def _report(process: subprocess.Popen, code: int) -> dict:
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == code, errors[-3000:]
    return json.loads(output.splitlines()[-1]) if output else {}

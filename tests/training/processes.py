"""Runs of the toy system in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 150  # of a machine that is busy


def start(options: dict) -> subprocess.Popen:
    """Starts a run with the compiler's flags of this process.

    Others would mean other rounding, and resumed runs are compared bit by bit.
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
    """What each process printed; fails with its errors if it ended otherwise."""
    try:
        return [_report(process, code) for process in processes]
    finally:  # one that failed leaves the others waiting for it
        for process in processes:
            process.kill()
            process.wait()


def _report(process: subprocess.Popen, code: int) -> dict:
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == code, errors[-3000:]
    return json.loads(output.splitlines()[-1]) if output else {}

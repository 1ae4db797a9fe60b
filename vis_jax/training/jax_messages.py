"""Shortens JAX's message about an unreachable coordinator to one line.

JAX then aborts the process (exit code 134) with a C++ stack trace, which no setting
suppresses.
"""

import os
import signal
import subprocess
import sys

START = b"Terminating process because the JAX distributed service detected fatal"
REASON = b"absl::Status: "
LINE = "error: process 0, the coordinator, or another one cannot be reached: {}"


def shorten() -> None:
    """Pipes the stderr of C++ code through a small program from now on.

    Python's stderr is unaffected.
    """
    sys.stderr.flush()
    own = os.dup(2)
    reading, writing = os.pipe()
    command = [sys.executable, "-S", "-E", __file__]
    # In its own session, so that Ctrl-C does not reach it.
    subprocess.Popen(command, stdin=reading, stdout=own, start_new_session=True)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)
    sys.stderr = os.fdopen(own, "w", buffering=1, errors="backslashreplace")


def shortened(line: bytes) -> bytes | None:
    """Returns our message for JAX's line about a lost coordinator, else None."""
    if START not in line:
        return None
    reason = line.partition(REASON)[2].decode(errors="replace")
    reason = reason.partition(". ")[0].strip()
    return f"{LINE.format(reason or 'JAX gives no reason')}\n".encode()


def main() -> None:
    """Copies lines until JAX announces its abort, then drops the stack trace."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the process
    skipping = False
    for line in sys.stdin.buffer:
        short = shortened(line)
        if not skipping:
            sys.stdout.buffer.write(short or line)
            sys.stdout.buffer.flush()
        skipping = skipping or short is not None


if __name__ == "__main__":
    main()

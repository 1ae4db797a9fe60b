"""What JAX's runtime prints when it cannot reach its coordinator, in one line.

JAX then aborts the process (exit code 134) and prints a stack of C++; there is no
setting for that.
"""

import os
import signal
import subprocess
import sys

START = b"Terminating process because the JAX distributed service detected fatal"
REASON = b"absl::Status: "
LINE = "error: process 0, the coordinator, or another one cannot be reached: {}"


def shorten() -> None:
    """From now on, what C++ writes to the standard error passes a small program.

    The standard error of Python does not.
    """
    sys.stderr.flush()
    own = os.dup(2)
    reading, writing = os.pipe()
    command = [sys.executable, "-S", "-E", __file__]
    # A session of its own: Ctrl-C is not for it.
    subprocess.Popen(command, stdin=reading, stdout=own, start_new_session=True)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)
    sys.stderr = os.fdopen(own, "w", buffering=1, errors="backslashreplace")


def shortened(line: bytes) -> bytes | None:
    """The line about a lost coordinator in place of JAX's, None for another line."""
    if START not in line:
        return None
    reason = line.partition(REASON)[2].decode(errors="replace")
    reason = reason.partition(". ")[0].strip()
    return f"{LINE.format(reason or 'JAX gives no reason')}\n".encode()


def main() -> None:
    """Copies lines until JAX says that it ends the process; what follows is a stack."""
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

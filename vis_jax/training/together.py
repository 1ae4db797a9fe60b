"""An error in one process of a run ends the others: they would wait for it in vain."""

import atexit
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from orbax.checkpoint import multihost

KEY = "vis_jax/failed"  # in the store of JAX's coordinator: who failed, and why
POLL = 1.0  # seconds
LAST_WORDS = 3.0  # seconds that the coordinator stays, so that all hear of an error
LONGEST_END = 5.0  # seconds to close files, which may wait for the other processes


def watch_others() -> None:
    """From now on, this process ends when another one tells of an error."""
    if jax.process_count() > 1:
        client = multihost.get_jax_distributed_client()
        threading.Thread(target=_watch, args=(client,), daemon=True).start()


@contextmanager
def telling_others() -> Iterator[None]:
    """Tells the other processes of an error inside, and ends within seconds of it."""
    try:
        yield
    except Exception as error:
        if jax.process_count() > 1:
            tell_others(f"{type(error).__name__}: {' '.join(str(error).split())}")
            code = 2 if isinstance(error, ValueError | OSError) else 1
            # JAX would wait for the others at its end, and so may what is closed.
            atexit.register(_exit, code)
            ending = threading.Timer(LONGEST_END, _end, args=(error, code))
            ending.daemon = True
            ending.start()
        raise


def tell_others(cause: str) -> None:
    """Ends the other processes with a line; those told before keep the first cause."""
    name = f"process {jax.process_index()} of {jax.process_count()}"
    client = multihost.get_jax_distributed_client()
    try:
        client.key_value_set(KEY, f"{name} on {socket.gethostname()}: {cause}")
    except Exception:  # one told first, whose end is the cause: see `_watch`
        time.sleep(LONGEST_END + 3 * POLL)
    if jax.process_index() == 0:
        time.sleep(LAST_WORDS)


def leave_others(cause: str, code: int) -> None:
    """Ends this process with a code, without a wait for the others, and ends them."""
    tell_others(cause)
    _exit(code)


def _watch(client: Any) -> None:
    own = f"process {jax.process_index()} of "
    while True:
        time.sleep(POLL)
        try:
            text = client.key_value_try_get(KEY)
        except Exception as error:
            if "NOT_FOUND" in str(error):
                continue
            return  # the run has ended, or JAX says that the coordinator has
        if not text.startswith(own):
            print(f"error: {text}", file=sys.stderr, flush=True)
            if jax.process_index() == 0:  # JAX aborts all that lose their coordinator
                time.sleep(LONGEST_END + POLL)
            _exit(2)
        return


def _end(error: Exception, code: int) -> None:
    if os.environ.get("VIS_JAX_TRACEBACK"):
        traceback.print_exception(error)
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    _exit(code)


def _exit(code: int) -> None:
    """Ends the process without JAX's wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

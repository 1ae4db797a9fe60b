"""Ends all processes when one fails, is killed or freezes, as the rest would hang.

Processes communicate through the key-value store of JAX's coordinator, in process 0.
Each writes heartbeats there; process 0 reads all of them, the others that of process 0.
JAX has heartbeats as well but aborts with a C++ stack trace, so its timeout is longer.
"""

import atexit
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from jax.extend.backend import clear_backends
from orbax.checkpoint import multihost

FAILED = "vis_jax/failed"  # folder of one key: failed process, cause, exit code
ALIVE = "vis_jax/alive"  # folder with a key per process: its host and a counter
LOST_AFTER = 60  # seconds; VIS_JAX_LOST_AFTER in the environment
# Shorter limit once a collective operation has failed, as it does when a process ends:
# the run cannot continue, and only the lost process has to be identified.
LOST_AFTER_FAILURE = 10.0
FAILING = " failing"  # suffix of the heartbeats of a process with a failed operation
LOST = 75  # exit code: another process was lost; "try again" in sysexits.h
POLL = 1.0  # seconds
LAST_WORDS = 3.0  # seconds the coordinator stays up so that all learn of an error
LONGEST_END = 5.0  # seconds to close files, which may wait for the other processes

_operation_failed = threading.Event()  # in this process
_watching: list[threading.Thread] = []


def lost_after(environ: Mapping[str, str] = os.environ) -> float:
    """Returns the seconds without a heartbeat after which a process counts as lost.

    Raises:
      ValueError: VIS_JAX_LOST_AFTER is not a number above 0.
    """
    text = environ.get("VIS_JAX_LOST_AFTER") or str(LOST_AFTER)
    if not text.isdecimal() or int(text) == 0:
        expected = "a number of seconds, 1 or more"
        raise ValueError(f"VIS_JAX_LOST_AFTER: expected {expected}, got {text!r}")
    return float(text)


def watch_others() -> None:
    """Starts a watch that ends this process when another one fails or is lost."""
    if jax.process_count() == 1:
        return
    client = multihost.get_jax_distributed_client()
    answered = threading.Event()
    threads = [threading.Thread(target=_watch, args=(client, answered), daemon=True)]
    if jax.process_index() > 0:
        # A call to a frozen coordinator may block for long.
        guard = threading.Thread(target=_guard, args=(answered,), daemon=True)
        threads.append(guard)
    for thread in threads:
        thread.start()
    _watching.extend(threads)


def leave_at_exit() -> None:
    """Disconnects from the other processes properly when this one ends.

    Call it before `jax.distributed.initialize`: exit handlers run in reverse order, and
    those of code that needs JAX are registered later.
    """
    atexit.register(_leave)


def _leave() -> None:
    """Waits for the others as JAX's own exit handler does, and then for the watch.

    The watch goes on until JAX has left, as the others may take long; the process would
    abort if the interpreter ended during a call of JAX's client.
    """
    clear_backends()
    jax.distributed.shutdown()
    for thread in _watching:
        thread.join(LONGEST_END)


class HeartbeatMonitor:
    """Finds processes without heartbeats.

    Args:
      watched: indices of the processes to watch.
      count: total number of processes.
      limit: seconds without a heartbeat after which a process is lost.
    """

    def __init__(self, watched: Iterable[int], count: int, limit: float) -> None:
        self._signs = dict.fromkeys(watched, "")
        self._silent = dict.fromkeys(self._signs, 0.0)
        self._count, self._limit = count, limit

    def lost(self, signs: dict[int, str], passed: float) -> str | None:
        """Returns a message about a lost process, or None.

        Args:
          signs: latest heartbeat of each process: "HOST NUMBER", with suffix FAILING
            if an operation has failed there.
          passed: seconds since the last call during which this process was running, so
            that a process that was itself frozen does not blame the others.
        """
        limit = self._limit
        if any(sign.endswith(FAILING) for sign in signs.values()):
            limit = min(limit, LOST_AFTER_FAILURE)
        for index, before in self._signs.items():
            sign = signs.get(index, "")
            alive = sign != before
            self._signs[index] = sign
            self._silent[index] = 0.0 if alive else self._silent[index] + passed
            if self._silent[index] > limit:
                host = sign.partition(" ")[0] or "an unknown host"
                return (
                    f"process {index} of {self._count} on {host}: no sign of life"
                    f" for {limit:g} s: killed, frozen or cut off"
                )
        return None


@contextmanager
def telling_others() -> Iterator[None]:
    """Reports an error inside to the other processes, and exits within seconds.

    A failed collective operation usually means that another process has ended; this
    process then exits with a message about that one.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() > 1:
            if _may_be_of_another(error):
                _operation_failed.set()
                # Meanwhile `_watch` ends this process if another one is lost.
                time.sleep(min(lost_after(), LOST_AFTER_FAILURE) + 10 * POLL)
            code = 2 if isinstance(error, ValueError | OSError) else 1
            cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
            tell_others(cause, code)
            # At exit JAX would wait for the other processes, and so may closing files.
            atexit.register(_exit, code)
            ending = threading.Timer(LONGEST_END, _end, args=(error, code))
            ending.daemon = True
            ending.start()
        raise


def tell_others(cause: str, code: int) -> None:
    """Ends the other processes with a message and an exit code.

    The first reported cause is kept.
    """
    name = f"process {jax.process_index()} of {jax.process_count()}"
    client = multihost.get_jax_distributed_client()
    try:
        _tell(client, f"{name} on {socket.gethostname()}: {cause}", code)
    except Exception:  # another process reported first; `_watch` handles it
        time.sleep(LONGEST_END + 3 * POLL)
    if jax.process_index() == 0:
        time.sleep(LAST_WORDS)


def leave_others(cause: str, code: int) -> None:
    """Ends the other processes, and this one without waiting for them."""
    tell_others(cause, code)
    _exit(code)


def _tell(client: Any, text: str, code: int) -> None:
    failure = {"text": text, "code": code, "from": jax.process_index()}
    client.key_value_set(f"{FAILED}/first", json.dumps(failure))


def _watch(client: Any, answered: threading.Event) -> None:
    """Sends heartbeats, and ends this process if another one fails or is lost."""
    index, host, number = jax.process_index(), socket.gethostname(), 0
    count = jax.process_count()
    # The coordinator is C++ and answers even if its Python process is frozen.
    judge = HeartbeatMonitor(range(count) if index == 0 else [0], count, lost_after())
    while jax.distributed.is_initialized():
        time.sleep(POLL)
        number += 1
        try:
            sign = f"{host} {number}{FAILING if _operation_failed.is_set() else ''}"
            client.key_value_set(f"{ALIVE}/{index}", sign, allow_overwrite=True)
            failure = _failure(client)
            lost = judge.lost(_signs(client, index), POLL)
            if failure is None and lost is not None:
                _tell(client, lost, LOST)
        except Exception:  # the run ends, or `_guard` handles a silent coordinator
            continue
        answered.set()
        if failure is None:
            continue
        if failure["from"] == index and failure["code"] != LOST:
            return  # this process is about to end
        _say(failure["text"])
        if index == 0:  # JAX aborts processes that lose their coordinator
            time.sleep(LONGEST_END + POLL)
        _exit(failure["code"])


def _failure(client: Any) -> dict | None:
    """Returns the failure reported by `_tell`."""
    found = client.key_value_dir_get(FAILED)
    return json.loads(found[0][1]) if found else None


def _signs(client: Any, index: int) -> dict[int, str]:
    """Returns the heartbeats this process checks: all, or only the coordinator's."""
    if index > 0:
        return {0: client.key_value_try_get(f"{ALIVE}/0")}
    found = client.key_value_dir_get(ALIVE)
    return {int(key.rpartition("/")[2]): sign for key, sign in found}


def _guard(answered: threading.Event) -> None:
    """Ends this process if the coordinator does not answer `_watch`."""
    limit, silent = lost_after(), 0.0
    while silent <= limit:
        time.sleep(POLL)
        if not jax.distributed.is_initialized():
            return
        # Counted in polls, not by the clock: this process may itself have been frozen.
        silent = 0.0 if answered.is_set() else silent + POLL
        answered.clear()
    _say(
        f"process 0 of {jax.process_count()}, the coordinator: no sign of life for"
        f" {limit:g} s: killed, frozen or cut off"
    )
    _exit(LOST)


def _may_be_of_another(error: BaseException | None) -> bool:
    """Returns whether the error is from JAX's runtime and not out-of-memory."""
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError):
            return "RESOURCE_EXHAUSTED" not in str(error)
        error = error.__cause__ or error.__context__
    return False


def _end(error: Exception, code: int) -> None:
    if os.environ.get("VIS_JAX_TRACEBACK"):
        traceback.print_exception(error)
    _say(" ".join(str(error).split()))
    _exit(code)


def _say(text: str) -> None:
    print(f"error: {text}", file=sys.stderr, flush=True)


def _exit(code: int) -> None:
    """Exits without JAX's wait for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

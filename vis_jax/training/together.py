"""A process that fails, is killed or freezes ends the others: they would wait in vain.

Processes talk through the key-value store of JAX's coordinator, which runs in process
0. Each one writes a sign of life there; process 0 reads them all, and the others that
of process 0. JAX has such signs, too, but ends a process with a stack of C++, so it
comes second.
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
from orbax.checkpoint import multihost

FAILED = "vis_jax/failed"  # folder of one key: who failed, why, the exit code
ALIVE = "vis_jax/alive"  # folder of keys, one for each process: its host and a number
LOST_AFTER = 60  # seconds; VIS_JAX_LOST_AFTER in the environment
# The same once a collective operation has failed, as it does where a process has ended:
# the run cannot go on, and the question is whose end it was.
LOST_AFTER_FAILURE = 10.0
FAILING = " failing"  # at the end of the signs of a process with a failed operation
LOST = 75  # exit code: another process was lost; "try again" in sysexits.h
POLL = 1.0  # seconds
LAST_WORDS = 3.0  # seconds that the coordinator stays, so that all hear of an error
LONGEST_END = 5.0  # seconds to close files, which may wait for the other processes

_operation_failed = threading.Event()  # in this process


def lost_after(environ: Mapping[str, str] = os.environ) -> float:
    """Seconds without a sign of life after which a process is lost.

    Raises:
      ValueError: VIS_JAX_LOST_AFTER is no number above 0.
    """
    text = environ.get("VIS_JAX_LOST_AFTER") or str(LOST_AFTER)
    if not text.isdecimal() or int(text) == 0:
        expected = "a number of seconds, 1 or more"
        raise ValueError(f"VIS_JAX_LOST_AFTER: expected {expected}, got {text!r}")
    return float(text)


def watch_others() -> None:
    """From now on, this process ends when another one fails or is lost."""
    if jax.process_count() == 1:
        return
    client = multihost.get_jax_distributed_client()
    answered = threading.Event()
    threads = [threading.Thread(target=_watch, args=(client, answered), daemon=True)]
    if jax.process_index() > 0:
        # A call to a coordinator that is frozen may not return for long.
        guard = threading.Thread(target=_guard, args=(answered,), daemon=True)
        threads.append(guard)
    for thread in threads:
        thread.start()


class Judge:
    """Finds the process that gives no sign of life.

    Args:
      watched: numbers of processes.
      count: of all processes.
      limit: seconds without a sign of life after which a process is lost.
    """

    def __init__(self, watched: Iterable[int], count: int, limit: float) -> None:
        self._signs = dict.fromkeys(watched, "")
        self._silent = dict.fromkeys(self._signs, 0.0)
        self._count, self._limit = count, limit

    def lost(self, signs: dict[int, str], passed: float) -> str | None:
        """What to say of the process that is lost, None if there is none.

        Args:
          signs: the newest sign of each process that has given one: "HOST NUMBER", and
            FAILING if an operation has failed there.
          passed: seconds since the last call in which this process could listen; one
            that has been frozen itself must not blame the others.
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
    """Tells the other processes of an error inside, and ends within seconds of it.

    An error of a collective operation is most often the end of another process. Then
    the line that this process ends with is about that one.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() > 1:
            if _may_be_of_another(error):
                _operation_failed.set()
                # If another one is lost, `_watch` ends this one meanwhile.
                time.sleep(min(lost_after(), LOST_AFTER_FAILURE) + 10 * POLL)
            code = 2 if isinstance(error, ValueError | OSError) else 1
            cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
            tell_others(cause, code)
            # JAX would wait for the others at its end, and so may what is closed.
            atexit.register(_exit, code)
            ending = threading.Timer(LONGEST_END, _end, args=(error, code))
            ending.daemon = True
            ending.start()
        raise


def tell_others(cause: str, code: int) -> None:
    """Ends the other processes with a line and an exit code.

    Those told before keep the first cause.
    """
    name = f"process {jax.process_index()} of {jax.process_count()}"
    client = multihost.get_jax_distributed_client()
    try:
        _tell(client, f"{name} on {socket.gethostname()}: {cause}", code)
    except Exception:  # one told first, whose end is the cause: see `_watch`
        time.sleep(LONGEST_END + 3 * POLL)
    if jax.process_index() == 0:
        time.sleep(LAST_WORDS)


def leave_others(cause: str, code: int) -> None:
    """Ends this process with a code, without a wait for the others, and ends them."""
    tell_others(cause, code)
    _exit(code)


def _tell(client: Any, text: str, code: int) -> None:
    failure = {"text": text, "code": code, "from": jax.process_index()}
    client.key_value_set(f"{FAILED}/first", json.dumps(failure))


def _watch(client: Any, answered: threading.Event) -> None:
    """Gives signs of life, and ends this process if another one fails or is lost."""
    index, host, number = jax.process_index(), socket.gethostname(), 0
    count = jax.process_count()
    # A coordinator whose Python stands still answers, as that is C++.
    judge = Judge(range(count) if index == 0 else [0], count, lost_after())
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
        except Exception:  # the run ends, or the coordinator does not answer: `_guard`
            continue
        answered.set()
        if failure is None:
            continue
        if failure["from"] == index and failure["code"] != LOST:
            return  # this process is about to end
        _say(failure["text"])
        if index == 0:  # JAX aborts all that lose their coordinator
            time.sleep(LONGEST_END + POLL)
        _exit(failure["code"])


def _failure(client: Any) -> dict | None:
    """What `_tell` told."""
    found = client.key_value_dir_get(FAILED)
    return json.loads(found[0][1]) if found else None


def _signs(client: Any, index: int) -> dict[int, str]:
    """Those that this process judges: all, or that of the coordinator."""
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
        # Counted, not measured: this process may have been frozen meanwhile.
        silent = 0.0 if answered.is_set() else silent + POLL
        answered.clear()
    _say(
        f"process 0 of {jax.process_count()}, the coordinator: no sign of life for"
        f" {limit:g} s: killed, frozen or cut off"
    )
    _exit(LOST)


def _may_be_of_another(error: BaseException | None) -> bool:
    """Whether it comes from JAX's runtime, and not for want of memory."""
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
    """Ends the process without JAX's wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

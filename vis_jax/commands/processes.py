"""Progress and signals for commands that run in several processes."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vis_jax.evaluate.shares import Share

_EVERY = 0.5  # seconds between polls of the other processes' progress
_LINE_EVERY = 30.0  # seconds between progress lines without a terminal


def own_share() -> "Share":
    """Returns the share of this process among all JAX processes."""
    import jax

    from vis_jax.evaluate.shares import Share

    return Share(jax.process_index() + 1, jax.process_count())


def check_alone(name: str) -> None:
    """Raises ValueError, naming a flag, if there are several JAX processes."""
    import jax

    if jax.process_count() > 1:
        raise ValueError(
            f"{name}: expected a single JAX process, got one of"
            f" {jax.process_count()}, which already divide the videos among them"
        )


@contextmanager
def together() -> Iterator[None]:
    """Joins the other processes, if any; an error or signal in one of them ends all.

    SIGTERM is an exception inside, so that what is finished can be stored.

    Raises:
      ValueError: see `initialise_distributed`.
      SystemExit: SIGTERM arrived, with code 143.
    """
    from vis_jax.training.distributed import initialise_distributed
    from vis_jax.training.together import leave_others, telling_others

    several = initialise_distributed()
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _interrupt) if in_main_thread else None
    try:
        with telling_others():
            yield
    except _TermError:
        text, code = "SIGTERM: start again to go on", 128 + signal.SIGTERM
        if several:
            leave_others(text, code)
        print(text, file=sys.stderr)
        raise SystemExit(code) from None
    except KeyboardInterrupt:
        if several:
            leave_others("Ctrl-C: start again to go on", 128 + signal.SIGINT)
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def meet(name: str) -> None:
    """Blocks until every process has called it.

    Unlike `wait_for_all` it waits in Python, so signals can interrupt it.

    Args:
      name: unique to each call.
    """
    import jax
    from orbax.checkpoint import multihost

    if jax.process_count() == 1:
        return
    client, folder = multihost.get_jax_distributed_client(), f"vis_jax/meet/{name}"
    client.key_value_set(f"{folder}/{jax.process_index()}", "here")
    while len(client.key_value_dir_get(folder)) < jax.process_count():
        time.sleep(_EVERY)


def all_texts(name: str, texts: Sequence[str]) -> list[str]:
    """Gathers the texts of all processes in each of them; all must call it.

    Args:
      name: unique to each call.
      texts: texts of this process.
    """
    import jax
    from orbax.checkpoint import multihost

    if jax.process_count() == 1:
        return list(texts)
    client = multihost.get_jax_distributed_client()
    folder = f"vis_jax/texts/{name}"
    client.key_value_set(f"{folder}/{jax.process_index():06}", json.dumps(list(texts)))
    meet(f"texts of {name}")
    found = sorted(client.key_value_dir_get(folder))
    return [text for _, value in found for text in json.loads(value)]


class _TermError(KeyboardInterrupt):
    """SIGTERM arrived. Not caught by a library's `except Exception`."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise _TermError


class SharedProgress:
    """Progress over all processes.

    The first process shows it as a bar on a terminal, otherwise as occasional lines. A
    context manager; `wait` of the first process returns when all are finished.

    Args:
      name: name of the work, unique to each use.
      total: number of items of all processes.
      unit: name of an item.
    """

    def __init__(self, name: str, total: int, unit: str = "video") -> None:
        import jax
        from orbax.checkpoint import multihost
        from tqdm import tqdm

        self._name, self._total, self._unit = name, total, unit
        self._several, self._index = jax.process_count() > 1, jax.process_index()
        self._client: Any = None
        if self._several:
            self._client = multihost.get_jax_distributed_client()
        shown = self._index == 0 and sys.stderr.isatty()
        self._bar = tqdm(None, name, total, unit=unit, disable=not shown)
        self._lines = self._index == 0 and not shown
        self._own = self._shown = 0
        self._looked = self._line = time.monotonic()

    def __enter__(self) -> "SharedProgress":
        return self

    def __exit__(self, *unused: object) -> None:
        self._bar.close()

    def tell(self, count: int) -> None:
        """Reports the number of finished items of this process."""
        self._own = count
        if self._several and self._index > 0:
            self._client.key_value_set(self._key(), str(count), allow_overwrite=True)
        self._show()

    def wait(self) -> None:
        """Shows, in process 0, the progress of the others until they finish."""
        while self._several and not self._index and self._all_finished() < self._total:
            self._show()
            time.sleep(_EVERY)
        self._show()

    def _key(self) -> str:
        return f"vis_jax/progress/{self._name}/{self._index}"

    def _all_finished(self) -> int:
        if not self._several:
            return self._own
        folder = f"vis_jax/progress/{self._name}"
        counts = self._client.key_value_dir_get(folder)
        return self._own + sum(int(count) for _, count in counts)

    def _show(self) -> None:
        now = time.monotonic()
        if self._index or (self._several and now - self._looked < _EVERY):
            return
        self._looked = now
        count = self._all_finished()
        self._bar.update(count - self._bar.n)
        if self._lines and now - self._line > _LINE_EVERY:
            self._line = now
            text = f"{self._name:<14}{count}/{self._total} {self._unit}s"
            print(text, file=sys.stderr, flush=True)

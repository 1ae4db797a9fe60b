"""How far a prediction is: a bar on a terminal, else a line for each phase."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vis_jax.results.clock import Clock

TICK = 0.5  # seconds between two looks of the bar at the phase
BAR = "{desc:<16}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} frames"
LINE_EVERY = 30.0  # seconds between two lines of frames that are done


class Progress(Clock):
    """The clock of one prediction, which shows what it measures on stderr.

    A context manager. Frames count once all that is wanted of them is written.

    Args:
      total: frames of the video, as far as known.
      terminal: whether stderr is one.
    """

    def __init__(self, total: int | None, *, terminal: bool) -> None:
        super().__init__()
        self._total, self._terminal = total, terminal
        self._phase, self._since = "reading", time.monotonic()
        self._line = time.monotonic()
        self._told: set[str] = set()
        self._end = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="bar", daemon=True)

    def __enter__(self) -> "Progress":
        if self._terminal:
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total,
                bar_format=BAR if self._total else None,
                unit="frame",
                desc=self._text(),
            )
            self._ticker.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._end.set()
        if self._terminal:
            self._ticker.join()
            self._bar.close()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the time spent inside, and shows that part as the phase."""
        if part == "reading":  # in another thread, while the others go on
            with super().__call__(part):
                yield
            return
        if part == "compiling":
            count = self.frames_read
            frames = "1 frame" if count == 1 else f"{count:,} frames"
            self._tell("reading", f"{frames} before the model begins")
        self._phase, self._since = part, time.monotonic()
        try:
            with super().__call__(part):
                yield
        finally:
            if part == "compiling":
                self._tell(part, f"{self.seconds[part]:.1f} s")
            self._phase, self._since = "reading", time.monotonic()

    def finish_frame(self) -> None:
        """Counts a frame that is done."""
        super().finish_frame()
        if self.frames_done == 1:
            begun = self.seconds.get("model", 0.0)
            self._tell("model", f"{begun:.1f} s until the first frame was done")
            self._line = time.monotonic()
        if self._terminal:
            if self._bar.total is not None:  # which a file may have got wrong
                self._bar.total = max(self._bar.total, self.frames_done)
            self._bar.update()
        elif time.monotonic() - self._line > LINE_EVERY:
            self._line = time.monotonic()
            of = f" of {self._total:,}" if self._total else ""
            print(f"{'frames':<14}{self.frames_done:,}{of} done", file=sys.stderr)

    def _tell(self, phase: str, text: str) -> None:
        """Prints a line for a phase that is over, once."""
        if not self._terminal and phase not in self._told:
            self._told.add(phase)
            print(f"{phase:<14}{text}", file=sys.stderr, flush=True)

    def _text(self) -> str:
        phase, since = self._phase, self._since
        if phase == "reading":
            return f"reading {self.frames_read}"
        passed = int(time.monotonic() - since)
        return f"{phase} {passed} s" if passed else phase

    def _tick(self) -> None:
        while not self._end.wait(TICK):
            self._bar.set_description_str(self._text())

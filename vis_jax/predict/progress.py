"""Progress of a prediction: a bar on a terminal, otherwise a line per phase."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vis_jax.results.clock import Clock

TICK = 0.5  # seconds between updates of the phase in the bar
BAR = "{desc:<16}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} frames"
OUTPUT = ("drawing", "writing")  # phases that last until the last frame
LINE_EVERY = 30.0  # seconds between lines with the number of finished frames


class Progress(Clock):
    """Clock of one prediction that shows its progress on stderr.

    A context manager. A frame counts once all its outputs are written.

    Args:
      total: number of frames of the video, if known.
      terminal: whether stderr is a terminal.
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

    def __exit__(self, *error: object) -> None:
        self._end.set()
        if self._terminal:
            self._ticker.join()
            self._bar.close()
        seconds = self.seconds
        for part in OUTPUT:
            if error[0] is None and part in seconds:
                self._tell(part, f"{seconds[part]:.1f} s")

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Measures the time spent inside, and shows `part` as the current phase."""
        if part == "reading":  # runs in another thread, alongside the others
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
        """Counts a finished frame."""
        super().finish_frame()
        if self.frames_done == 1:
            begun = self.seconds.get("model", 0.0)
            self._tell("model", f"{begun:.1f} s until the first frame was done")
            self._line = time.monotonic()
        if self._terminal:
            if self._bar.total is not None:  # file headers may be wrong
                self._bar.total = max(self._bar.total, self.frames_done)
            self._bar.update()
        elif time.monotonic() - self._line > LINE_EVERY:
            self._line = time.monotonic()
            total = f" of {self._total:,}" if self._total else ""
            print(f"{'frames':<14}{self.frames_done:,}{total} done", file=sys.stderr)

    def _tell(self, phase: str, text: str) -> None:
        """Prints a line for a finished phase, once."""
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

"""What a run shows: a line of progress, and scalars and images for TensorBoard."""

import datetime
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import jax
import numpy as np
from etils import epath

from vis_jax.paths import copy_folder, is_remote

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter
    from tqdm import tqdm

FOLDER = "tensorboard"
SPEEDS = ("steps_per_second", "clips_per_second")
COPY_EVERY = 60.0  # seconds from one copy of events to a bucket to the next
NOT_SHOWN = (*SPEEDS, "gradient_norm", "learning_rate")


class Writer:
    """Writes nothing; what every process but the first one has."""

    def progress(
        self, step: int, values: dict[str, float], notes: dict[str, float]
    ) -> None:
        """Shows how far the run is, and writes scalars.

        Args:
          step: updates done.
          values: written as "train".
          notes: written as "notes"; shown where they are not zero.
        """

    def scalars(self, step: int, values: dict[str, float], *, group: str) -> None:
        """Writes values under `group/name`."""

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Writes uint8 images [H, W, 3] by name."""

    def message(self, text: str) -> None:
        """Prints a line."""

    def close(self) -> None:
        """Ends the line of progress and the files."""


class TensorBoardWriter(Writer):
    """Writes to `workdir/tensorboard` and to the standard error.

    On a terminal, progress is a bar; elsewhere, one line for each call. To a bucket
    (gs://..) events go once a minute and at the end, from a local folder.

    Raises:
      OSError: the folder cannot be made; before the first step, not after it.
    """

    def __init__(self, workdir: str, *, num_steps: int):
        self._num_steps = num_steps
        self._folder = os.path.join(workdir, FOLDER)
        self._bucket: epath.Path | None = None
        self._local: tempfile.TemporaryDirectory | None = None
        self._copied = time.monotonic()
        if is_remote(workdir):
            self._bucket = epath.Path(workdir) / FOLDER
            self._bucket.mkdir(parents=True, exist_ok=True)
            self._local = tempfile.TemporaryDirectory()
            self._folder = self._local.name
        self._events: "SummaryWriter | None" = None
        self._bar: "tqdm | None" = None

    def _open(self, step: int) -> "SummaryWriter":
        """On the first event. TensorBoard then drops those of a run that was killed."""
        from tensorboardX import SummaryWriter
        from tqdm import tqdm

        if self._events is None:
            self._events = SummaryWriter(self._folder, purge_step=step)
            if sys.stderr.isatty():
                total = self._num_steps
                self._bar = tqdm(total=total, initial=step, dynamic_ncols=True)
        return self._events

    def progress(
        self, step: int, values: dict[str, float], notes: dict[str, float]
    ) -> None:
        self.scalars(step, values, group="train")
        self.scalars(step, notes, group="notes")
        if self._bar is None:
            total = self._num_steps
            self.message(progress_line(step, values, notes, num_steps=total))
        else:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(_terms(values, notes))

    def scalars(self, step: int, values: dict[str, float], *, group: str) -> None:
        events = self._open(step)
        for name, value in values.items():
            events.add_scalar(f"{group}/{name}", value, step)
        if time.monotonic() - self._copied > COPY_EVERY:
            self._copy()

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        events = self._open(step)
        for name, image in images.items():
            events.add_image(name, image, step, dataformats="HWC")

    def message(self, text: str) -> None:
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._events is not None:
            self._events.close()
            self._copy()
            self._events = None
        if self._local is not None:
            self._local.cleanup()

    def _copy(self) -> None:
        """Brings the events so far to the bucket, if that is where they belong."""
        if self._bucket is None or self._events is None:
            return
        self._events.flush()
        copy_folder(self._folder, self._bucket)
        self._copied = time.monotonic()


def open_writer(workdir: str, *, num_steps: int) -> Writer:
    """A writer that writes in the first process only."""
    if jax.process_index() == 0:
        return TensorBoardWriter(workdir, num_steps=num_steps)
    return Writer()


def progress_line(
    step: int, values: dict[str, float], notes: dict[str, float], *, num_steps: int
) -> str:
    """`step 20/90  loss 1.5  mask 1.2  dice 0.3  9.1 clips/s  ETA 0:01:10`."""
    speed = values["steps_per_second"]
    left = round((num_steps - step) / speed) if speed else None
    eta = "-" if left is None else datetime.timedelta(seconds=left)
    clips = f"{values['clips_per_second']:.1f} clips/s"
    return f"step {step}/{num_steps}  {_terms(values, notes)}  {clips}  ETA {eta}"


def _terms(values: dict[str, float], notes: dict[str, float]) -> str:
    terms = {name: values[name] for name in values if name not in NOT_SHOWN}
    noted = {name: value for name, value in notes.items() if value}
    shown = {"loss": terms.pop("loss"), **terms, **noted}
    return "  ".join(f"{name} {value:.4g}" for name, value in shown.items())

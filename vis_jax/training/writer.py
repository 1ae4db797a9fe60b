"""Output of a run: a progress line, and scalars and images for its loggers."""

import datetime
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from vis_jax.settings import to_dict
from vis_jax.training.logger import Logger
from vis_jax.training.loggers import open_loggers
from vis_jax.training.run_config import LoopSettings

if TYPE_CHECKING:
    from tqdm import tqdm

SPEEDS = ("steps_per_second", "clips_per_second")
NOT_SHOWN = (*SPEEDS, "gradient_norm", "learning_rate")


class Writer:
    """Writes nothing; used by every process but the first."""

    def progress(
        self, step: int, values: dict[str, float], notes: dict[str, float]
    ) -> None:
        """Shows progress and writes scalars.

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

    def phase(self, text: str) -> None:
        """Prints a line about a phase before the first update."""

    def close(self) -> None:
        """Ends the progress line and closes the files."""


class RunWriter(Writer):
    """Shows progress on stderr, and passes scalars and images to loggers.

    Progress is a bar on a terminal, otherwise one line per call.

    Args:
      num_steps: number of updates of the run.
      loggers: receive scalars and images.
    """

    def __init__(self, num_steps: int, loggers: Sequence[Logger]) -> None:
        self._num_steps, self._loggers = num_steps, loggers
        self._bar: "tqdm | None" = None
        self._begun = False

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
        self._begin(step)
        for logger in self._loggers:
            logger.scalars(step, {f"{group}/{k}": v for k, v in values.items()})

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        self._begin(step)
        for logger in self._loggers:
            logger.images(step, images)

    def message(self, text: str) -> None:
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def phase(self, text: str) -> None:
        self.message(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        for logger in self._loggers:
            logger.close()

    def _begin(self, step: int) -> None:
        """Opens the bar."""
        if self._begun:
            return
        self._begun = True
        if sys.stderr.isatty():
            from tqdm import tqdm

            total = self._num_steps
            self._bar = tqdm(total=total, initial=step, dynamic_ncols=True)


def open_writer(workdir: str, config: LoopSettings) -> Writer:
    """Opens a writer that writes in the first process only.

    Raises:
      ValueError: see `open_loggers`.
    """
    if jax.process_index() > 0:
        return Writer()
    names, project = config.train.loggers, config.train.project
    fields = to_dict(config)
    loggers = open_loggers(names, workdir, project=project, config=fields)
    return RunWriter(config.num_steps, loggers)


def progress_line(
    step: int, values: dict[str, float], notes: dict[str, float], *, num_steps: int
) -> str:
    """Formats "step 20/90  loss 1.5  mask 1.2  dice 0.3  9.1 clips/s  ETA 0:01:10"."""
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

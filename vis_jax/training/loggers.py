"""Loggers of numbers and pictures of a run: a file of lines, TensorBoard, services."""

import importlib
import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from vis_jax.paths import copy_folder, is_remote
from vis_jax.training.logger import Logger
from vis_jax.training.metrics_file import MetricsFile

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER = "tensorboard"
RUN_ID = "run_id"  # in the workdir: what services know the run by
COPY_EVERY = 60.0  # seconds from one copy of events to a bucket to the next
SERVICES = ("wandb", "trackio")


class TensorBoard(Logger):
    """Event files in `workdir/tensorboard`.

    To a bucket (gs://..) events go once a minute and at the end, from a local folder.

    Raises:
      OSError: the folder cannot be made; before the first step, not after it.
    """

    def __init__(self, workdir: str) -> None:
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

    def _open(self, step: int) -> "SummaryWriter":
        """On the first event. TensorBoard then drops those of a run that was killed."""
        from tensorboardX import SummaryWriter

        if self._events is None:
            self._events = SummaryWriter(self._folder, purge_step=step)
        return self._events

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        events = self._open(step)
        for name, value in values.items():
            events.add_scalar(name, value, step)
        if time.monotonic() - self._copied > COPY_EVERY:
            self._copy()

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        events = self._open(step)
        for name, image in images.items():
            events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
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


class Service(Logger):
    """Weights & Biases or trackio, which have the same functions.

    A run that goes on is the same run there, by the id in `workdir/run_id`. What a
    killed run had sent of later steps cannot be taken back.

    Args:
      name: of the module.
      workdir: of the run, whose last part is its name.
      project: of the service.
      config: settings to show beside the run.
    """

    def __init__(self, name: str, workdir: str, project: str, config: Mapping) -> None:
        self._module, self._kind = service_module(name), name
        self._workdir, self._project, self._config = workdir, project, config
        self._open = False

    def _start(self) -> None:
        """On the first event: a run that ends before it leaves nothing."""
        if self._open:
            return
        title, key = os.path.basename(self._workdir.rstrip("/")), run_id(self._workdir)
        if self._kind == "wandb":
            named = {"name": title, "id": key}
            if not is_remote(self._workdir):
                named["dir"] = self._workdir
        else:  # a run has no id but its name
            named = {"name": f"{title}-{key}"}
        self._module.init(
            project=self._project, config=dict(self._config), resume="allow", **named
        )
        self._open = True

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._start()
        self._module.log(dict(values), step=step)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._start()
        pictures = {name: self._module.Image(image) for name, image in images.items()}
        self._module.log(pictures, step=step)

    def close(self) -> None:
        if self._open:
            self._module.finish()
            self._open = False


def service_module(name: str) -> Any:
    """The module of a service.

    Raises:
      ValueError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"train.loggers: {name!r} needs the package {name}:"
            f" pip install 'vis_jax[loggers]' ({error})"
        ) from error


def check_loggers(names: Sequence[str]) -> None:
    """Raises ValueError unless the packages of all loggers are installed."""
    for name in names:
        if name in SERVICES:
            service_module(name)


def run_id(workdir: str) -> str:
    """Identifier of the run for services; drawn once and kept in the workdir."""
    path = epath.Path(workdir) / RUN_ID
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


def open_loggers(
    names: Sequence[str], workdir: str, *, project: str, config: Mapping
) -> list[Logger]:
    """The file of metrics, and a logger for each name.

    Args:
      names: "tensorboard", "wandb", "trackio".
      workdir: of the run.
      project: of services.
      config: settings to show there.

    Raises:
      ValueError: a package is not installed.
    """
    found: list[Logger] = [MetricsFile(workdir)]
    for name in dict.fromkeys(names):
        if name == "tensorboard":
            found.append(TensorBoard(workdir))
        else:
            found.append(Service(name, workdir, project, config))
    return found

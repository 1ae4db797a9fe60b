"""Loggers for scalars and images of a run: JSON lines, TensorBoard, services."""

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
from vis_jax.training.metrics_file import COPY_EVERY, MetricsFile

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER = "tensorboard"
RUN_ID = "run_id"  # in the workdir: id of the run for services
SERVICES = ("wandb", "trackio")


class TensorBoard(Logger):
    """Writes event files in `workdir/tensorboard`.

    Events for a bucket (gs://..) go to a local folder that is copied once a minute and
    at the end.

    Raises:
      OSError: the folder cannot be created; raised before the first step.
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
        """Opens on the first event: TensorBoard then purges steps of a killed run."""
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
        """Copies the events so far if the workdir is in a bucket."""
        if self._bucket is None or self._events is None:
            return
        self._events.flush()
        copy_folder(self._folder, self._bucket)
        self._copied = time.monotonic()


class Service(Logger):
    """Logs to Weights & Biases or trackio, which share an API.

    A resumed run continues under the id in `workdir/run_id`. Later steps that a killed
    run has already sent cannot be removed.

    Args:
      name: name of the module.
      workdir: folder of the run; its last part names the run.
      project: project of the service.
      config: settings to show with the run.
    """

    def __init__(self, name: str, workdir: str, project: str, config: Mapping) -> None:
        self._module, self._kind = service_module(name), name
        self._workdir, self._project, self._config = workdir, project, config
        self._open = False

    def _start(self) -> None:
        """Starts on the first event, so a run that fails earlier leaves nothing."""
        if self._open:
            return
        title, key = os.path.basename(self._workdir.rstrip("/")), run_id(self._workdir)
        if self._kind == "wandb":
            named = {"name": title, "id": key}
            if not is_remote(self._workdir):
                named["dir"] = self._workdir
        else:  # trackio identifies runs by name alone
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
    """Imports the module of a service.

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
    """Returns the run's id for services, generated once and kept in the workdir."""
    path = epath.Path(workdir) / RUN_ID
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


def open_loggers(
    names: Sequence[str], workdir: str, *, project: str, config: Mapping
) -> list[Logger]:
    """Opens the metrics file and a logger for each name.

    Args:
      names: "tensorboard", "wandb", "trackio".
      workdir: folder of the run.
      project: project name for services.
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

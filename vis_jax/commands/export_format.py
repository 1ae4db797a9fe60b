"""What a format of `export` is: a module of this package with `define` and `write`.

`define(values)` adds the flags of the format; `write(model, folder, values)` fills a
new folder. `export` adds the model card and the record, runs what was written on a
clip, and gives the folder its name only if that agrees with the model.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from absl import flags

from vis_jax.export.agreement import Tolerance

if TYPE_CHECKING:
    from vis_jax.commands.saved_model import SavedModel
    from vis_jax.results.frame import Stream


@runtime_checkable
class Reopen(Protocol):
    """Reads an export from its folder."""

    def __call__(self) -> "Stream":
        """Returns what runs it on the frames of a video."""
        ...


class Written(NamedTuple):
    """An export whose files are written.

    Attributes:
      reopen: reads it back; called once the record and the model card are there, too.
      tolerance: how far it may be from the model.
      usage: for the model card: Markdown that says how to load it.
      record: further fields of `export.json`; JSON.
      lines: for the report of the command, such as what was left out.
      canvases: height and width in pixels of the only canvases that it runs on, on
        which the model runs beside it; () = any.
      most_frames: of a video that it takes at once; None = any number.
    """

    reopen: Reopen
    tolerance: Tolerance
    usage: str
    record: dict[str, object] = {}  # noqa: RUF012  # never changed
    lines: tuple[str, ...] = ()
    canvases: tuple[tuple[int, int], ...] = ()
    most_frames: int | None = None


@runtime_checkable
class Format(Protocol):
    """A module that writes one format."""

    def define(self, values: flags.FlagValues) -> None:
        """Adds the flags of the format."""
        ...

    def write(
        self, model: "SavedModel", folder: Path, values: flags.FlagValues
    ) -> Written:
        """Writes the files of a model.

        Args:
          model: a run's.
          folder: that is new and empty.
          values: of the command line.

        Raises:
          ValueError: the format cannot hold this model, or a flag is wrong.
          OSError: a file cannot be written; names it.
        """
        ...

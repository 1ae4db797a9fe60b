"""Interface of `export` formats: modules of this package with `define` and `write`.

`define(values)` adds the flags of the format; `write(model, folder, values)` fills a
new folder. `export` adds the model card and the record, runs the export on a clip, and
gives the folder its final name only if the results agree with the model.
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
        """Returns the stream that runs it on the frames of a video."""
        ...


class WrittenExport(NamedTuple):
    """A written export.

    Attributes:
      reopen: reads it back; called after the record and the model card are written.
      tolerance: permitted deviation from the model.
      usage: Markdown for the model card on how to load it.
      record: further JSON fields of `export.json`.
      lines: lines for the report of the command, e.g. on omitted parts.
      canvases: height and width in pixels of the supported canvases, on which the model
        is compared; () = any.
      most_frames: maximum frames per video; None = any number.
    """

    reopen: Reopen
    tolerance: Tolerance
    usage: str
    record: dict[str, object] = {}  # noqa: RUF012  # never changed
    lines: tuple[str, ...] = ()
    canvases: tuple[tuple[int, int], ...] = ()
    most_frames: int | None = None


@runtime_checkable
class ExportFormat(Protocol):
    """A module that writes one format."""

    def define(self, values: flags.FlagValues) -> None:
        """Adds the flags of the format."""
        ...

    def write(
        self, model: "SavedModel", folder: Path, values: flags.FlagValues
    ) -> WrittenExport:
        """Writes the files of a model.

        Args:
          model: model of a run.
          folder: new, empty folder.
          values: flags.

        Raises:
          ValueError: the format cannot hold this model, or a flag is wrong.
          OSError: a file cannot be written; names it.
        """
        ...

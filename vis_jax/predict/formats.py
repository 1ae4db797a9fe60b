"""The files that a prediction can be written to, in one table.

The help of the command line shows it, so that what takes time is imported when it is
needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from vis_jax.results.files import INFO, RESULTS

if TYPE_CHECKING:
    from vis_jax.results.video import VideoResult

IDS, VIDEO, TRACKS, PAGE = "ids", "video.mp4", "tracks.jsonl", "report.html"


@runtime_checkable
class Write(Protocol):
    """Writes a file once the tracks are known."""

    def __call__(self, path: Path, result: "VideoResult", /) -> None:
        """Writes it; `result` has the best entry of each track that is shown."""
        ...


class Format(NamedTuple):
    """One kind of output.

    Attributes:
      file: its name in the output folder.
      text: what it is, for the help.
      write: None: it grows frame by frame, see `vis_jax.predict.writer`, or is
        `results.json`, which has all entries.
    """

    file: str
    text: str
    write: Write | None = None


def _text(path: Path, text: str) -> None:
    from vis_jax.formats.disk import replacing

    with replacing(path) as file:
        file.write(text)


def _coco(path: Path, result: "VideoResult") -> None:
    from vis_jax.formats.json_checks import write_json

    write_json(path, result.to_coco(), indent=None)


FORMATS = {
    "json": Format(RESULTS, f"YouTube-VIS results with track ids, and {INFO}"),
    "jsonl": Format(TRACKS, "a line for each frame, as it comes"),
    "csv": Format(
        "tracks.csv",
        "a row for each object of each frame",
        lambda path, result: _text(path, result.to_csv()),
    ),
    "mot": Format(
        "mot.txt",
        "boxes as in the MOTChallenge",
        lambda path, result: _text(path, result.to_mot()),
    ),
    "mots": Format(
        "mots.txt",
        "masks without overlaps as in the MOTS challenge",
        lambda path, result: _text(path, result.to_mots()),
    ),
    "coco": Format("coco.json", "COCO annotations with track ids", _coco),
    "ids": Format(IDS, "a PNG for each frame, one track id per pixel"),
    "html": Format(PAGE, "frames with masks to scrub, in one page without a network"),
    "mp4": Format(VIDEO, "the video with masks and labels"),
}
DEFAULT = ("json", "jsonl", "mp4")
PICTURED = {"html", "mp4"}  # need the frames once more when the objects are known


def read_formats(names: Sequence[str]) -> tuple[str, ...]:
    """The formats of a list, each once, in the order of the table.

    Raises:
      ValueError: there is none, or one that is not in the table.
    """
    for name in names:
        if name not in FORMATS:
            raise ValueError(
                f"--save: expected some of {','.join(FORMATS)}, got {name}"
            )
    if not names:
        raise ValueError(f"--save: expected some of {','.join(FORMATS)}, got none")
    return tuple(name for name in FORMATS if name in names)


def write_finished(
    folder: Path, result: "VideoResult", formats: Sequence[str], threshold: float
) -> None:
    """Writes what is known once the video has ended.

    Args:
      folder: to write to.
      result: all tracks.
      formats: of FORMATS.
      threshold: a track of which no class reaches it is only in `results.json`.

    Raises:
      OSError: a file cannot be written, as on a full disk; names the file.
    """
    shown = result.shown(threshold)
    for name in formats:
        form = FORMATS[name]
        if form.write is not None:
            form.write(folder / form.file, shown)
    if "json" in formats:
        result.save(folder)

"""Table of the output formats of a prediction.

The command-line help shows it, so slow modules are imported only when needed.
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
    """Writes a file once all tracks are known."""

    def __call__(self, path: Path, result: "VideoResult", /) -> None:
        """Writes the file; `result` has the best entry of each track shown."""
        ...


class OutputFormat(NamedTuple):
    """An output format.

    Attributes:
      file: its name in the output folder.
      text: description, for the help.
      write: None for files that grow frame by frame (`vis_jax.predict.writer`) and for
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
    "json": OutputFormat(RESULTS, f"YouTube-VIS results with track ids, and {INFO}"),
    "jsonl": OutputFormat(TRACKS, "a line per frame, written as it is processed"),
    "csv": OutputFormat(
        "tracks.csv",
        "a row per object and frame",
        lambda path, result: _text(path, result.to_csv()),
    ),
    "mot": OutputFormat(
        "mot.txt",
        "boxes in MOTChallenge format",
        lambda path, result: _text(path, result.to_mot()),
    ),
    "mots": OutputFormat(
        "mots.txt",
        "masks without overlaps in MOTS format",
        lambda path, result: _text(path, result.to_mots()),
    ),
    "coco": OutputFormat("coco.json", "COCO annotations with track ids", _coco),
    "ids": OutputFormat(IDS, "a PNG per frame, with one track id per pixel"),
    "html": OutputFormat(
        PAGE, "self-contained page to scrub through frames with masks"
    ),
    "mp4": OutputFormat(VIDEO, "the video with masks and labels"),
}
DEFAULT = ("json", "jsonl", "mp4")
PICTURED = {"html", "mp4"}  # need the frames again once the objects are known


def read_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the named formats without duplicates, in table order.

    Raises:
      ValueError: the list is empty, or a format is unknown.
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
    """Writes the files that need the whole video.

    Args:
      folder: output folder.
      result: all tracks.
      formats: keys of FORMATS.
      threshold: tracks whose every class is below it appear in `results.json` only.

    Raises:
      OSError: a file cannot be written, e.g. the disk is full; names the file.
    """
    shown = result.shown(threshold)
    for name in formats:
        form = FORMATS[name]
        if form.write is not None:
            form.write(folder / form.file, shown)
    if "json" in formats:
        result.save(folder)

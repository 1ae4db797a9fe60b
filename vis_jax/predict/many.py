"""Finds many videos: in a folder, or listed in a text file."""

import glob
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from os.path import isdir, isfile  # unlike Path's, never raise PermissionError
from pathlib import Path
from typing import NamedTuple

from etils import epath

from data_pipeline.file_names import IMAGE_SUFFIXES, natural_order
from vis_jax.paths import is_incomplete
from vis_jax.predict.errors import PredictError
from vis_jax.predict.live import LIVE, STDIN
from vis_jax.predict.loop import RUN
from vis_jax.predict.sources import OTHER_IMAGE_SUFFIXES
from vis_jax.results.video import RESULTS

LIST_SUFFIX = ".txt"
# Suffixes of videos in a folder; a list may name files with any suffix.
VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".mxf", ".ogv", ".ts", ".webm", ".wmv", ".y4m"),
)


class OneVideo(NamedTuple):
    """One of many videos."""

    path: str  # a file, or a folder of images
    name: str  # name of its output folder
    size: int  # bytes; 0 if it cannot be read

    def record(self, run_id: str) -> dict:
        """Returns the content of `run.json` for the finished video."""
        return {"run_id": run_id, "source": self.name, "bytes": self.size}

    def finished(
        self, output: epath.PathLike, run_id: str, files: Sequence[str] = (RESULTS,)
    ) -> bool:
        """Whether its output files exist, from the same run and the same video."""
        address = os.path.join(output, self.name)
        folder = epath.Path(address)
        if not (folder / RUN).exists() or is_incomplete(address):
            return False
        try:
            found = json.loads((folder / RUN).read_text())
        except (OSError, ValueError):
            return False
        complete = all((folder / file).exists() for file in files)
        return found == self.record(run_id) and complete


class FoundVideos(NamedTuple):
    """Videos found in a source."""

    videos: tuple[OneVideo, ...]
    ignored: tuple[str, ...]  # paths in a folder that are not videos


def find_videos(sources: Sequence[str]) -> FoundVideos | None:
    """Returns the videos of a folder, list or several sources; None for one video.

    A folder with images is one video. Otherwise its videos are its files with one of
    VIDEO_SUFFIXES and its subfolders with images. A list has one path per line,
    relative to its own folder; empty lines and lines starting with # are skipped. A
    pattern may match several video files. In paths ~ is the user's home.

    Raises:
      PredictError: a folder has both images and videos, a list is empty or cannot be
        read, or two videos would share an output folder; names them.
    """
    found = [_paths(source) for source in sources]
    if len(found) == 1 and found[0] is None:
        return None
    paths: list[Path] = []
    ignored: list[str] = []
    for source, several in zip(sources, found, strict=True):
        if several is None and _is_live(source):
            raise PredictError(f"--source: expected {source} alone, as it has no end")
        own, others = ([Path(source).expanduser()], []) if several is None else several
        paths += own
        ignored += others
    return FoundVideos(_named(paths), tuple(ignored))


def _is_live(source: str) -> bool:
    return source == STDIN or source.startswith(LIVE)


def _paths(source: str) -> tuple[list[Path], list[str]] | None:
    """Returns (videos, other files) of one source; None if it is itself a video."""
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.suffix.lower() == LIST_SUFFIX and path.is_file():
        return _in_list(path), []
    if path.exists() or not glob.has_magic(source):
        return None
    matches = [Path(name) for name in glob.glob(str(path), recursive=True)]
    videos = [one for one in matches if _has_suffix(one, VIDEO_SUFFIXES)]
    if len(videos) < 2 or len(videos) < len(matches):
        return None
    return sorted(videos, key=natural_order), []


def _in_folder(folder: Path) -> tuple[list[Path], list[str]] | None:
    entries = [p for p in folder.iterdir() if not p.name.startswith(".")]
    entries.sort(key=natural_order)
    images = [
        p for p in entries if _has_suffix(p, (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES))
    ]
    videos = [p for p in entries if _has_suffix(p, VIDEO_SUFFIXES)]
    if images and videos:
        raise PredictError(
            f"{folder}: expected frames of one video, or videos, got both"
            f" {images[0].name} and {videos[0].name}; choose by a pattern, such as"
            f" '{folder}/*{videos[0].suffix}'"
        )
    if images:
        return None
    is_video = {p: _is_video(p) for p in entries}
    found = [p for p in entries if is_video[p]]
    ignored = [str(p) for p in entries if not is_video[p]]
    return (found, ignored) if found else None


def _is_video(path: Path) -> bool:
    return _has_images(path) if isdir(path) else _has_suffix(path, VIDEO_SUFFIXES)


def _has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes


def _has_images(folder: Path) -> bool:
    """Returns whether a folder has images; False if it cannot be read."""
    try:
        return any(_has_suffix(p, IMAGE_SUFFIXES) for p in folder.iterdir())
    except OSError:
        return False


def _in_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except ValueError as error:
        raise PredictError(f"{path}: expected text in UTF-8, got {error}") from error
    except OSError as error:
        raise PredictError(f"{path}: {error.strerror}") from error
    found = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if _is_live(line):
            raise PredictError(
                f"{path}, line {number}: expected a file or a folder of images, got"
                f" {line}"
            )
        if line and not line.startswith("#"):
            found.append(path.parent / Path(line).expanduser())
    if not found:
        raise PredictError(f"{path}: expected the path of a video on each line")
    return found


def _named(paths: Sequence[Path]) -> tuple[OneVideo, ...]:
    """Names the output folder of each video.

    The name is the file name without its suffix, or with it where two would collide.
    """
    short = _names(paths, lambda path: path.name if isdir(path) else path.stem)
    twice = Counter(name.casefold() for name in short)
    whole = _names(paths, lambda path: path.name)
    pairs = zip(short, whole, strict=True)
    names = [w if twice[s.casefold()] > 1 else s for s, w in pairs]
    taken: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        # Some file systems are case-insensitive.
        other = taken.setdefault(name.casefold(), path)
        if other is not path:
            raise PredictError(
                f"{path}: expected another name than {other}, as both would write to"
                f" the folder {name}"
            )
    return tuple(
        OneVideo(str(path), name, _bytes(path))
        for path, name in zip(paths, names, strict=True)
    )


def _names(paths: Sequence[Path], name: Callable[[Path], str]) -> list[str]:
    return [name(path.absolute()) for path in paths]


def _bytes(path: Path) -> int:
    """Returns the size; 0 if unreadable: that is reported when its turn comes."""
    try:
        if isdir(path):
            return sum(one.stat().st_size for one in path.iterdir() if isfile(one))
        return path.stat().st_size if isfile(path) else 0
    except OSError:
        return 0

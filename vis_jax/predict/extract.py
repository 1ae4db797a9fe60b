"""Extracts video frames as image files, for labelling."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_pipeline.datasets.ytvis_json import MAX_FRAMES, stays_inside
from data_pipeline.images import JPEG_QUALITY
from vis_jax.predict.errors import PredictError
from vis_jax.predict.live import LIVE, STDIN
from vis_jax.predict.many import FoundVideos, OneVideo, find_videos
from vis_jax.predict.part import Part
from vis_jax.predict.sources import Source, open_source
from vis_jax.predict.staging import publish, staging

RECORD = ".extracted.json"  # in the folder of a video: source of its frames


class FrameChoice(NamedTuple):
    """Which frames to extract, and the image format."""

    every: int = 1  # the first frame from `start` on, and every n-th after it
    start: float = 0.0  # seconds since the first frame of the video
    end: float | None = None  # seconds; frames at or after it are left out
    suffix: str = "jpg"  # or "png"


class Extracted(NamedTuple):
    """Extracted frames of one video."""

    frames: int
    written: bool  # False: they already existed
    warnings: tuple[str, ...]  # anomalies of the video


def find(source: str) -> FoundVideos:
    """Returns the videos of a file, a folder of videos, or a list (.txt).

    Raises:
      PredictError: there is none, or it is endless, like a camera.
    """
    if source == STDIN or source.startswith(LIVE):
        raise PredictError(f"{source}: expected a video file, got a live source")
    found = find_videos([source])
    if found is not None:
        return found
    opened = open_source(source)
    file = Path(opened.path)
    size = file.stat().st_size if file.is_file() else 0
    return FoundVideos((OneVideo(source, opened.name, size),), ())


def extract(
    video: OneVideo,
    output: Path,
    choice: FrameChoice,
    tick: Callable[[], object] = lambda: None,
) -> Extracted:
    """Writes `output/<video>/<video>_<number>.jpg`, numbered as in the video.

    File names include the name of the video, as some tools drop folders. The folder
    appears when it is complete; a folder with the same frames is left as it is.

    Args:
      video: as returned by `find`.
      output: folder for all videos.
      choice: frames to extract.
      tick: called for each frame read.

    Raises:
      PredictError: the video cannot be read or has no such frame, or its folder has
        other content.
    """
    folder = output / video.name
    if video.name.startswith(".") or not stays_inside(video.name):
        expected = "the name of a folder: not hidden, without ':' and '\\'"
        raise PredictError(f"{video.path}: expected {expected}, got {video.name}")
    record = {"source": Path(video.path).name, "bytes": video.size, **choice._asdict()}
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        _check_same(folder, record)
        frames = sum(file.suffix == f".{choice.suffix}" for file in folder.iterdir())
        return Extracted(frames, False, ())
    source = open_source(video.path)
    with staging(folder) as new:
        frames = _write(source, new / video.name, choice, tick)
        (new / RECORD).write_text(json.dumps(record))
        publish(new, folder, [file.name for file in new.iterdir()])
    return Extracted(frames, True, tuple(source.warnings))


def _check_same(folder: Path, record: dict) -> None:
    """Raises PredictError unless the folder already has the frames to extract."""
    expected = f"{folder}: expected a new folder, or the same frames of the same video"
    try:
        found = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        raise PredictError(f"{expected}, got one with other files") from None
    if found != record:
        differ = [key for key in record if not _same(found, key, record[key])]
        got = f"other {' and '.join(differ)}" if differ else "other frames"
        raise PredictError(f"{expected}, got {got}")


def _same(found: object, key: str, value: object) -> bool:
    return isinstance(found, dict) and found.get(key) == value


def _write(
    source: Source, stem: Path, choice: FrameChoice, tick: Callable[[], object]
) -> int:
    """Writes the chosen frames as `<stem>_<number>.jpg`; returns their number."""
    part, count = Part(choice.start, choice.end, choice.every), 0
    for _, (number, pixels) in part.chosen(_numbered(source, tick)):
        if count == MAX_FRAMES:
            raise PredictError(
                f"{source.path}: expected at most {MAX_FRAMES} frames, got more"
            )
        _save(pixels, stem.with_name(f"{stem.name}_{number:06d}.{choice.suffix}"))
        count += 1
    if not count:
        raise PredictError(f"{source.path}: has no frame {part.when()}")
    return count


def _numbered(
    source: Source, tick: Callable[[], object]
) -> Iterator[tuple[float, tuple[int, np.ndarray]]]:
    """Yields time, number and pixels of the frames."""
    for number, (pixels, seconds) in enumerate(source.read()):
        tick()
        yield seconds, (number, pixels)


def _save(pixels: np.ndarray, file: Path) -> None:
    image = Image.fromarray(pixels)
    if file.suffix == ".png":
        image.save(file, "PNG", compress_level=1)
    else:
        image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)

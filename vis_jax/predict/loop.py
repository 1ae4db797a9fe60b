"""Predicts a video and writes its results in one pass, frame by frame."""

import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from signal import Signals
from typing import NamedTuple

import numpy as np

from vis_jax.formats.json_checks import write_json
from vis_jax.predict.choice import ObjectFilter
from vis_jax.predict.errors import PredictError
from vis_jax.predict.formats import FORMATS, PICTURED, read_formats, write_finished
from vis_jax.predict.interrupt import Stop, StoppedError, stoppable
from vis_jax.predict.source import Source
from vis_jax.predict.staging import check_output, publish, staging
from vis_jax.predict.writer import OutputWriter, RequestedOutputs
from vis_jax.results.clock import NO_CLOCK, Clock
from vis_jax.results.collect import Collector
from vis_jax.results.frame import FrameResult, Stream
from vis_jax.results.video import INFO, RESULTS, TrackEntry, VideoResult

RUN = "run.json"  # for one of many videos: the inputs its results depend on
FPS = (Fraction(1, 100), Fraction(1000))  # range for the drawn video


class Outputs(NamedTuple):
    """Files that `predict` wrote; None for formats not requested."""

    results: Path | None
    info: Path | None
    tracks: Path | None
    csv: Path | None
    mot: Path | None
    mots: Path | None
    coco: Path | None
    html: Path | None
    ids: Path | None  # a folder
    video: Path | None


class PredictionOutcome(NamedTuple):
    """Outcome of a prediction."""

    outputs: Outputs | None  # None: stopped before the first frame
    num_frames: int
    first: float  # seconds from the call to the first result
    seconds: float  # from the call to the end
    stopped: Signals | None  # the signal that stopped it
    tracks: tuple[TrackEntry, ...] = ()  # best-scoring entry of every track


ALL_DRAWN = RequestedOutputs()
# The last file marks the results as complete.
_OTHERS = tuple(form.file for form in FORMATS.values() if form.file != RESULTS)
FILES = (*_OTHERS, INFO, RESULTS, RUN)


class Finder(NamedTuple):
    """A system prepared to track the objects of a video."""

    stream: Stream  # maps frames to their objects
    categories: Sequence[tuple[int, str]]  # (category id, name) of labels 0 .. K - 1
    top: int  # maximum number of tracks in `results.json`
    # The stream reads all frames before the first result. They are read again for
    # drawing, rather than all kept in memory.
    whole: bool = False


def predict(
    source: Source,
    output: str | Path,
    finder: Finder,
    *,
    wanted: RequestedOutputs = ALL_DRAWN,
    overwrite: bool = False,
    clock: Clock = NO_CLOCK,
) -> PredictionOutcome:
    """Predicts a video and writes its tracks into a folder, all or nothing.

    `formats.FORMATS` lists the files. Those that grow frame by frame have the scores
    known at that frame, the others those after the last frame. SIGINT and SIGTERM end
    the video; final results are still written.

    Args:
      source: the frames.
      output: output folder; created with its parents if missing.
      finder: the system.
      wanted: files to write, and the drawing style.
      overwrite: replace existing results in the folder; other files are kept.
      clock: measures reading, compiling, model, masks, drawing and writing, and counts
        frames.

    Raises:
      PredictError: the output is not empty, a frame cannot be read, or the source is
        live but the stream reads whole videos.
      ValueError: an argument or a prediction is out of range.
      OSError: a file cannot be written, e.g. the disk is full; names the file.
    """
    output, begin = Path(output), time.perf_counter()
    rate = _check_arguments(source, output, wanted, overwrite)
    check_live(source, finder.whole)
    job = _Job(source, finder, wanted, rate, clock)
    with staging(output) as folder, stoppable() as stop:
        found, first = _write_all(job, folder, stop)
        count = found.num_frames if found else 0
        if count:
            with clock("writing"):
                publish(folder, output, FILES)
    outputs = _outputs(output, wanted) if count else None
    seconds = time.perf_counter() - begin
    best = tuple(found.tracks[i] for i in found.best_entries) if found else ()
    return PredictionOutcome(
        outputs, count, (first or begin) - begin, seconds, stop.asked, best
    )


def predict_whole(
    source: Source,
    output: Path,
    finder: Finder,
    record: Mapping[str, str | int],
    *,
    wanted: RequestedOutputs = ALL_DRAWN,
    overwrite: bool = False,
) -> tuple[TrackEntry, ...]:
    """Like `predict`, for one of many videos: writes all of it or nothing.

    Args:
      source, output, finder, wanted, overwrite: see `predict`.
      record: inputs of the results, written to `run.json`, the last file to appear.

    Returns:
      The best-scoring entry of every track.

    Raises:
      PredictError, ValueError, OSError: as in `predict`; or the source is live.
    """
    rate = _check_arguments(source, output, wanted, overwrite)
    if source.live:
        raise PredictError(f"{source.path}: expected a file or a folder of images")
    job = _Job(source, finder, wanted, rate, NO_CLOCK)
    with staging(output) as folder:
        found, _ = _write_all(job, folder, Stop())
        write_json(folder / RUN, dict(record), indent=1)
        publish(folder, output, FILES)
    return tuple(found.shown(0.0).tracks) if found else ()


class _Job(NamedTuple):
    """Validated arguments of `predict`."""

    source: Source
    finder: Finder
    wanted: RequestedOutputs
    rate: Fraction  # frames per second of the drawn video
    clock: Clock


def _write_all(
    job: _Job, folder: Path, stop: Stop
) -> tuple[VideoResult | None, float | None]:
    """Writes the files; returns the final tracks and the time of the first result."""
    source, finder, wanted, rate, clock = job
    collector, first = Collector(finder.top, folder), None
    draw = not PICTURED.isdisjoint(wanted.formats)
    frames = FrameQueue(source, draw=draw, whole=finder.whole, clock=clock)
    names = [name for _, name in finder.categories]
    choice = ObjectFilter(names, wanted.classes, wanted.tracks)
    results = _checked(frames, finder.stream(frames, clock=clock), len(names))
    try:
        with OutputWriter(folder, source, names, wanted, rate, clock) as writer:
            for found in _until(stop, results):
                first = first or time.perf_counter()
                found = choice.of(found)
                writer.write(*frames.take(), found)
                with clock("writing"):
                    collector.add(found)
                clock.finish_frame()
    finally:
        source.stop()
    count = collector.num_frames
    if not count:
        return None, first
    with clock("writing"):
        result = collector.result(count, (source.height, source.width))
        result = of_source(result, source, finder.categories)
        write_finished(folder, result, wanted.formats, wanted.score_threshold)
        writer.finish(result)
    return result, first


def check_live(source: Source, whole: bool) -> None:
    """Raises PredictError for an endless source if all frames are needed first.

    Args:
      source: the frames.
      whole: whether the system reads the whole video before the first result.
    """
    if source.live and whole:
        raise PredictError(
            f"{source.path}: expected a system that reads a live source clip by clip,"
            " got one that reads whole videos; set --config.test.mode=clip"
        )


class FrameQueue:
    """Queue of frames that the stream has read and that await their result.

    Args:
      source: the frames; read by iteration, possibly in another thread.
      draw: whether pixels are needed for drawing.
      whole: whether all frames are read before the first result, so that pixels have to
        be read again.
      clock: measures the second reading.
    """

    def __init__(
        self, source: Source, *, draw: bool, whole: bool, clock: Clock
    ) -> None:
        self._source, self._clock = source, clock
        self._keep = draw and not whole
        self._again = source.read() if draw and whole else None
        self._frames: deque[tuple[float, np.ndarray | None]] = deque()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the frames and appends each to the queue."""
        for frame in self._source.read():
            pixels = frame.pixels if self._keep else None
            self._frames.append((frame.seconds, pixels))
            self._clock.read_frame()
            yield frame.pixels

    def take(self) -> tuple[float, np.ndarray | None]:
        """Pops the next frame: its seconds, and its pixels if they are needed."""
        seconds, pixels = self._frames.popleft()
        if self._again is None:
            return seconds, pixels
        with self._clock("reading"):
            frame = next(self._again, None)
        if frame is None:
            raise PredictError(f"{self.path}: has fewer frames than before")
        return seconds, frame.pixels

    @property
    def path(self) -> str:
        """Path of the source, for messages."""
        return self._source.path

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self._source.height, self._source.width

    def __len__(self) -> int:
        """Number of frames in the queue."""
        return len(self._frames)


def _until(stop: Stop, results: Iterator[FrameResult]) -> Iterator[FrameResult]:
    """Yields results until a signal arrives."""
    try:
        while True:
            with stop.waiting():
                found = next(results, None)
            if found is None:
                return
            yield found
    except StoppedError:
        return


def _outputs(output: Path, wanted: RequestedOutputs) -> Outputs:
    names = {"json": "results", "jsonl": "tracks", "mp4": "video"}
    found: dict[str, Path | None] = dict.fromkeys(Outputs._fields)
    for name in wanted.formats:
        found[names.get(name, name)] = output / FORMATS[name].file
    if "json" in wanted.formats:
        found["info"] = output / INFO
    return Outputs(**found)


def _check_arguments(
    source: Source, output: Path, wanted: RequestedOutputs, overwrite: bool
) -> Fraction:
    """Validates the arguments; returns the frames per second of the drawn video."""
    check_wanted(wanted)
    check_output(output, overwrite=overwrite)
    return _drawn_rate(source, wanted)


def check_wanted(wanted: RequestedOutputs) -> None:
    """Raises ValueError for an invalid setting, such as a rate out of range."""
    read_formats(wanted.formats)
    if not 0 <= wanted.score_threshold <= 1:
        raise ValueError(
            f"score_threshold: expected 0 .. 1, got {wanted.score_threshold}"
        )
    low, high = FPS
    if wanted.fps is not None and not low <= wanted.fps <= high:
        expected = f"{float(low)} .. {high} frames a second"
        raise ValueError(f"--fps: expected {expected}, got {wanted.fps}")


def _drawn_rate(source: Source, wanted: RequestedOutputs) -> Fraction:
    if wanted.fps is not None:
        return Fraction(wanted.fps)
    return min(max(source.fps, FPS[0]), FPS[1])


def warning_lines(source: Source, wanted: RequestedOutputs) -> list[str]:
    """Returns warnings to show before the model runs, one line each with the file."""
    lines, draws = [], "mp4" in wanted.formats
    if source.pixel_aspect != 1:
        ratio = "{}:{}".format(*source.pixel_aspect.as_integer_ratio())
        lines.append(
            f"{source.path}: pixels are not square but {ratio} (width:height); masks"
            " and boxes are those of the stored frames"
        )
    if source.dynamic_range:
        lines.append(
            f"{source.path}: high dynamic range ({source.dynamic_range}), tone-mapped"
            " to BT.709"
        )
    if source.sound is not None and draws and wanted.fps is None:
        codec = source.sound.codec
        if not source.sound.fits:
            lines.append(
                f"{source.path}: mp4 cannot hold its sound ({codec}): left out"
            )
    low, high = FPS
    if draws and wanted.fps is None and not low <= source.fps <= high:
        drawn = float(_drawn_rate(source, wanted))
        lines.append(
            f"{source.path}: {source.fps} frames a second; the drawn video gets"
            f" {drawn:g} (expected {float(low)} .. {high}; --fps sets it)"
        )
    return lines


def _checked(
    frames: FrameQueue, results: Iterator[FrameResult], classes: int
) -> Iterator[FrameResult]:
    """Yields the results after checking that there is one per frame, with valid tracks.

    Raises:
      ValueError: a result is invalid.
      PredictError: there is no frame.
    """
    count = 0
    for count, found in enumerate(results, 1):
        if found.frame != count - 1 or not frames:
            expected = f"frame {count - 1} of the video"
            raise ValueError(f"prediction: expected {expected}, got {found.frame}")
        _check_frame(found, frames.size, classes)
        yield found
    if frames:
        expected = f"{count + len(frames)} frames"
        raise ValueError(f"prediction: expected {expected}, got {count}")
    if not count:
        raise PredictError(f"{frames.path}: has no frame")


def _check_frame(found: FrameResult, size: tuple[int, int], classes: int) -> None:
    """Raises ValueError unless tracks have `classes` classes and masks this size."""
    probs, ids = found.tracks.class_probs, found.tracks.ids
    if probs.shape[1] != classes:
        raise ValueError(
            f"prediction: expected probabilities of {classes} classes,"
            f" got {probs.shape[1]}"
        )
    if not ((probs >= 0) & (probs <= 1)).all():  # also false for NaN
        raise ValueError(f"prediction: expected scores in 0 .. 1, got {probs}")
    if ids.min(initial=1) < 1:
        raise ValueError(f"prediction: expected track ids 1, 2, .., got {ids}")
    for rle in found.segmentations:
        if list(rle["size"]) != list(size):
            raise ValueError(
                f"prediction: expected masks of size {list(size)}, got {rle['size']}"
            )


def of_source(
    found: VideoResult, source: Source, categories: Sequence[tuple[int, str]]
) -> VideoResult:
    """Adds the names of the video, its frames and classes to the tracks."""
    return dataclasses.replace(
        found,
        fps=source.fps,
        categories=tuple(categories),
        name=source.name,
        file_names=source.file_names[: found.num_frames],
    )

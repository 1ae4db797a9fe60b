"""From a video to results on disk: one pass for the model, one for drawing."""

import glob
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from vis_jax.metrics.json_checks import write_json
from vis_jax.metrics.results_json import video_entries, write_results
from vis_jax.predict.errors import PredictError
from vis_jax.predict.sinks import VideoSink, id_map, write_ids
from vis_jax.predict.sources import Source
from vis_jax.visualize.draw import draw_frame

IDS, VIDEO, INFO, RESULTS = "ids", "video.mp4", "video.json", "results.json"
VIDEO_ID = 1  # of the only video in the results
FPS = (Fraction(1, 100), Fraction(1000))  # lowest and highest of the drawn video


@runtime_checkable
class Prediction(Protocol):
    """The tracks of one video, which are only read; N tracks over T frames."""

    @property
    def labels(self) -> np.ndarray:
        """int32 [N], 0 .. K - 1."""

    @property
    def scores(self) -> np.ndarray:
        """float32 [N], in [0, 1]."""

    @property
    def track_ids(self) -> np.ndarray:
        """int32 [N], 1, 2, .."""

    @property
    def segmentations(self) -> Sequence[Sequence[dict | None]]:
        """[N][T] run lengths {"size": [H, W], "counts": bytes}; None if absent."""


class Outputs(NamedTuple):
    """What `predict` wrote; None for what was not asked for."""

    results: Path
    info: Path
    video: Path | None
    ids: Path | None  # a folder


class Wanted(NamedTuple):
    """What `predict` writes beside the tracks."""

    # Tracks below it are neither drawn nor in the id images; what is drawn of a track
    # with several classes is the best one.
    score_threshold: float = 0.3
    draw_video: bool = True  # `video.mp4` with masks and labels
    write_pngs: bool = False  # `ids/00000.png` ..: one track id per pixel
    # Frames a second of the drawn video; None: as the source, within FPS.
    fps: Fraction | float | None = None


ALL_DRAWN = Wanted()


def predict(
    source: Source,
    output: str | Path,
    infer: Callable[..., Prediction],
    *,
    categories: Sequence[tuple[int, str]],
    wanted: Wanted = ALL_DRAWN,
    overwrite: bool = False,
    progress: bool = True,
) -> Outputs:
    """Writes the tracks of a video into a folder, or nothing if anything fails.

    `results.json` has every track, in the layout of the YouTube-VIS results;
    `video.json` has the video, the categories and the track ids that it refers to.

    Args:
      source: the frames.
      output: folder to write; made with its parents if missing.
      infer: `infer(frames, height=, width=, num_frames=)`, with `frames` an iterator
        over uint8 [H, W, 3] and sizes in pixels.
      categories: (category id, name) of labels 0 .. K - 1.
      wanted: what is drawn, and how.
      overwrite: replaces these files in a folder that has some; all else there stays.
      progress: whether to show progress bars.

    Raises:
      PredictError: the output is not empty, or a frame cannot be read.
      ValueError: an argument or a prediction that is out of range.
      OSError: a file cannot be written, as on a full disk; names the file.
    """
    output = Path(output)
    rate = _check_arguments(source, output, wanted, overwrite)
    with _staging(output) as folder:
        prediction = infer(
            _with_bar(source, "model", progress),
            height=source.height,
            width=source.width,
            num_frames=source.num_frames,
        )
        _check_prediction(prediction, source, len(categories))
        _write_tracks(folder, source, prediction, categories)
        shown = _shown(prediction, wanted.score_threshold)
        if wanted.write_pngs:
            _write_ids(folder / IDS, source, prediction, shown)
        if wanted.draw_video:
            names = [name for _, name in categories]
            frames = _drawn(source, prediction, shown, names, progress)
            _write_video(folder / VIDEO, frames, source, rate)
        _publish(folder, output)
    return _outputs(output, wanted)


def _outputs(output: Path, wanted: Wanted) -> Outputs:
    return Outputs(
        results=output / RESULTS,
        info=output / INFO,
        video=output / VIDEO if wanted.draw_video else None,
        ids=output / IDS if wanted.write_pngs else None,
    )


def _shown(prediction: Prediction, score_threshold: float) -> np.ndarray:
    """Entries to draw: of every track id the best one, if it reaches the threshold."""
    scores = np.asarray(prediction.scores)
    best: dict[int, int] = {}
    for i in np.argsort(-scores, kind="stable"):
        best.setdefault(int(prediction.track_ids[i]), int(i))
    return np.array(
        sorted(i for i in best.values() if scores[i] >= score_threshold), int
    )


def _check_arguments(
    source: Source, output: Path, wanted: Wanted, overwrite: bool
) -> Fraction:
    """Frames a second of the drawn video, once all arguments are known to be good."""
    if not 0 <= wanted.score_threshold <= 1:
        raise ValueError(
            f"score_threshold: expected 0 .. 1, got {wanted.score_threshold}"
        )
    low, high = FPS
    if wanted.fps is not None and not low <= wanted.fps <= high:
        expected = f"{float(low)} .. {high} frames a second"
        raise ValueError(f"--fps: expected {expected}, got {wanted.fps}")
    if output.exists() and not output.is_dir():
        raise PredictError(f"{output}: expected a folder, found a file")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise PredictError(f"{output}: not empty; pass overwrite to replace results")
    return _drawn_rate(source, wanted)


def _drawn_rate(source: Source, wanted: Wanted) -> Fraction:
    if wanted.fps is not None:
        return Fraction(wanted.fps)
    return min(max(source.fps, FPS[0]), FPS[1])


def warning_lines(source: Source, wanted: Wanted) -> list[str]:
    """What a user should know before the model runs: one line each, with the file."""
    lines = list(source.warnings)
    low, high = FPS
    if wanted.draw_video and wanted.fps is None and not low <= source.fps <= high:
        drawn = float(_drawn_rate(source, wanted))
        lines.append(
            f"{source.path}: {source.fps} frames a second; the drawn video gets"
            f" {drawn:g} (expected {float(low)} .. {high}; --fps sets it)"
        )
    return lines


@contextmanager
def _staging(output: Path) -> Iterator[Path]:
    """A new folder on the file system of `output`, gone afterwards.

    Errors of the file system name files in it as they would be called in `output`.
    """
    ancestor = output.absolute().parent
    while not ancestor.exists():
        ancestor = ancestor.parent
    _remove_abandoned(output.name, ancestor)
    prefix = f".{output.name}.partial-{socket.gethostname()}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=ancestor) as temporary:
        folder = Path(temporary) / "output"
        folder.mkdir()  # unlike the temporary folder, with the user's permissions
        try:
            yield folder
        except OSError as error:
            file = Path(str(error.filename))
            if not file.is_relative_to(folder):
                raise
            shown = str(output / file.relative_to(folder))
            raise OSError(error.errno, error.strerror, shown) from error


def _remove_abandoned(name: str, ancestor: Path) -> None:
    """Removes staging folders of processes of this host that were killed."""
    host = re.escape(socket.gethostname())
    for folder in ancestor.glob(f".{glob.escape(name)}.partial-*"):
        made = re.fullmatch(rf".*\.partial-{host}-(\d+)-\w+", folder.name)
        if made and not _runs(int(made[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # of another user, or no number of ours
        return True
    return True


def _publish(folder: Path, output: Path) -> None:
    """Moves what was written to its place; earlier results there go."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.exists():
        os.replace(folder, output)
        return
    # The results come last: where they are, the rest is complete.
    for name in (IDS, VIDEO, INFO, RESULTS):
        made, old = folder / name, output / name
        if old.is_dir():
            shutil.rmtree(old)
        if made.exists():
            os.replace(made, old)
        else:
            old.unlink(missing_ok=True)


def _with_bar(source: Source, text: str, progress: bool) -> Iterator[np.ndarray]:
    from tqdm import tqdm

    bar = tqdm(source, text, source.num_frames, unit="frame", disable=not progress)
    return iter(bar)


def _check_prediction(prediction: Prediction, source: Source, classes: int) -> None:
    """Raises ValueError unless the prediction is one of this video."""
    N = len(prediction.scores)
    for name in ("labels", "track_ids", "segmentations"):
        if len(getattr(prediction, name)) != N:
            raise ValueError(
                f"prediction: expected {N} {name}, got {len(getattr(prediction, name))}"
            )
    labels, scores = np.asarray(prediction.labels), np.asarray(prediction.scores)
    if N and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"prediction: expected labels 0 .. {classes - 1}, got {labels}"
        )
    if not ((scores >= 0) & (scores <= 1)).all():  # also false for NaN
        raise ValueError(f"prediction: expected scores in 0 .. 1, got {scores}")
    if N and np.min(prediction.track_ids) < 1:
        raise ValueError(
            f"prediction: expected track ids 1, 2, .., got {prediction.track_ids}"
        )
    size = [source.height, source.width]
    for i, frames in enumerate(prediction.segmentations):
        if len(frames) != source.num_frames:
            raise ValueError(
                f"prediction: expected {source.num_frames} segmentations of track {i},"
                f" got {len(frames)}"
            )
        for rle in frames:
            if rle is not None and list(rle["size"]) != size:
                raise ValueError(
                    f"prediction: expected masks of size {size}, got {rle['size']}"
                )


def _write_tracks(
    folder: Path,
    source: Source,
    prediction: Prediction,
    categories: Sequence[tuple[int, str]],
) -> None:
    """Writes every track, and what the tracks are of."""
    entries = video_entries(
        prediction.labels,
        prediction.scores,
        prediction.segmentations,
        video_id=VIDEO_ID,
        category_ids=[number for number, _ in categories],
    )
    write_results(folder / RESULTS, entries)
    write_json(folder / INFO, _info(source, prediction, categories), indent=2)


def _info(
    source: Source, prediction: Prediction, categories: Sequence[tuple[int, str]]
) -> dict:
    """What `results.json` refers to, named as in the YouTube-VIS annotations."""
    video = {
        "id": VIDEO_ID,
        "name": source.name,
        "height": source.height,
        "width": source.width,
        "length": source.num_frames,
        "file_names": list(source.file_names),
        "fps": float(source.fps),
    }
    return {
        "videos": [video],
        "categories": [{"id": int(i), "name": name} for i, name in categories],
        # One per entry of the results, in the same order.
        "track_ids": [int(i) for i in prediction.track_ids],
    }


class Present(NamedTuple):
    """The tracks that a frame shows."""

    masks: np.ndarray  # bool [N, H, W]
    track_ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def _present(prediction: Prediction, tracks: np.ndarray, t: int) -> Present | None:
    """Those of `tracks` that are in frame `t`; None if there are none."""
    from pycocotools.mask import decode

    tracks = np.array(
        [i for i in tracks if prediction.segmentations[i][t] is not None], int
    )
    if not tracks.size:
        return None
    # A view: pycocotools puts the pixels of a mask together, column by column.
    masks = decode([prediction.segmentations[i][t] for i in tracks])
    return Present(
        np.moveaxis(masks, 2, 0).view(bool),
        np.asarray(prediction.track_ids)[tracks],
        np.asarray(prediction.labels)[tracks],
        np.asarray(prediction.scores)[tracks],
    )


def _write_ids(
    folder: Path, source: Source, prediction: Prediction, shown: np.ndarray
) -> None:
    folder.mkdir()
    largest = int(np.asarray(prediction.track_ids)[shown].max(initial=0))
    for t in range(source.num_frames):
        ids = np.zeros((source.height, source.width), np.uint16)
        present = _present(prediction, shown, t)
        if present is not None:
            ids = id_map(present.masks, present.track_ids, present.scores)
        write_ids(folder / f"{t:05d}.png", ids, largest=largest)


def _drawn(
    source: Source,
    prediction: Prediction,
    shown: np.ndarray,
    names: Sequence[str],
    progress: bool,
) -> Iterator[np.ndarray]:
    for t, frame in enumerate(_with_bar(source, "draw", progress)):
        present = _present(prediction, shown, t)
        if present is None:
            yield frame
            continue
        masks, track_ids, labels, scores = present
        yield draw_frame(
            frame, masks, track_ids, labels=labels, names=names, scores=scores
        )


def _write_video(
    path: Path, frames: Iterator[np.ndarray], source: Source, fps: Fraction
) -> None:
    with VideoSink(path, fps=fps, height=source.height, width=source.width) as video:
        for frame in frames:
            video.write(frame)

"""Printed output of `predict`."""

import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epath

from data_pipeline.errors import printable

if TYPE_CHECKING:
    from vis_jax.predict.loop import PredictionOutcome
    from vis_jax.results.clock import Clock
    from vis_jax.results.video import TrackEntry


def tell(lines: "list[str]", kind: str = "warning") -> None:
    """Prints warnings, which do not stop the run."""
    for line in lines:
        print(f"{kind}: {printable(line)}", file=sys.stderr)


def report(
    done: "PredictionOutcome", clock: "Clock", output: str, *, threshold: float
) -> None:
    """Prints what was found and written, and the time taken.

    Args:
      done: outcome of the prediction.
      clock: times of its parts, and "start", the seconds before it began.
      output: folder of the files.
      threshold: minimum score of drawn objects.
    """
    if done.stopped:
        from vis_jax.predict.interrupt import SIGNALS

        name = SIGNALS[done.stopped]
        written = f"the results of {done.num_frames} frames are written"
        if done.outputs is None:
            written = "no frame was final yet, nothing is written"
        print(f"{name}: {written}", file=sys.stderr)
    if done.outputs is None:
        return
    for name, path in done.outputs._asdict().items():
        if path is not None:
            print(f"{name:<14}{epath.Path(output) / path.name}")
    print(f"{'found':<14}{found_line(done.tracks, threshold)}")
    seconds = clock.seconds
    parts = [f"{part} {value:.1f}" for part, value in seconds.items()]
    print(f"{'seconds':<14}{', '.join(parts)}")
    first = seconds.get("start", 0.0) + done.first
    print(f"{'first frame':<14}{first:.1f} s after the start")
    rest = done.seconds - seconds.get("compiling", 0.0)
    each = 1000 * rest / done.num_frames
    frames = "1 frame" if done.num_frames == 1 else f"{done.num_frames:,} frames"
    print(f"{'ms a frame':<14}{each:.1f} ({frames} in {rest:.1f} s, once compiled)")


def found_line(tracks: "Sequence[TrackEntry]", threshold: float) -> str:
    """Reports the number of tracks per class that reach the drawing threshold.

    Args:
      tracks: each with its best class.
      threshold: least score of what is drawn.
    """
    shown = [track for track in tracks if track.score >= threshold]
    if not shown and not tracks:
        return "no track"
    if not shown:
        best = max(tracks, key=lambda track: track.score)
        # Never rounded up to a value it does not reach.
        what = f"{math.floor(100 * best.score) / 100:.2f} ({best.label})"
        return f"0 of {len(tracks)} tracks reach {threshold:g}; the best has {what}"
    counts = Counter(track.label for track in shown).most_common()
    classes = ", ".join(f"{count} {label}" for label, count in counts)
    reached = f"{len(shown)} of {len(tracks)} tracks reach {threshold:g}"
    return f"{reached}: {classes}"

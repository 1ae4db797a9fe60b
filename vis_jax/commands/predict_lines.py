"""What `predict` prints."""

import sys
from typing import TYPE_CHECKING

from etils import epath

from data_pipeline.errors import printable

if TYPE_CHECKING:
    from vis_jax.predict.loop import Done
    from vis_jax.results.clock import Clock


def tell(lines: "list[str]", kind: str = "warning") -> None:
    """Prints what is odd, or not as asked for, but lets the run go on."""
    for line in lines:
        print(f"{kind}: {printable(line)}", file=sys.stderr)


def report(done: "Done", clock: "Clock", *, setup: float, output: str) -> None:
    """Prints what was written, and how long it took.

    Args:
      done: how the prediction ended.
      clock: its parts.
      setup: seconds before it began.
      output: folder that has the files now.
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
    seconds = [f"{part} {value:.1f}" for part, value in clock.seconds.items()]
    print(f"{'seconds':<14}{', '.join(seconds)}")
    print(f"{'first frame':<14}{setup + done.first:.1f} s after the start")
    rate = done.num_frames / done.seconds
    print(f"{'frames/s':<14}{rate:.2f} ({done.num_frames} in {done.seconds:.1f} s)")

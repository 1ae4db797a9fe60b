"""From the frames of one video to its objects, frame by frame, at the original size.

The system runs once for each canvas and number of frames of a clip. Its masks leave the
device a few frames at a time and become run lengths at once, so that memory holds one
clip at model size, and no video of masks at the original size. Models that were
exported run here, too: nothing of this needs Flax or a config.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from absl import logging

from vis_jax.evaluate.ahead import Ahead
from vis_jax.evaluate.clips import Piece, Sizing, read_pieces
from vis_jax.evaluate.masks import frame_masks, run_lengths
from vis_jax.results.clock import NO_CLOCK, Clock
from vis_jax.results.frame import FrameResult, LiveTracks, Stream
from vis_jax.structures import Clip, Predictions, Render, Window


@runtime_checkable
class StartClips(Protocol):
    """The state before the first clip of a video."""

    def __call__(self, clip: Clip, /) -> Any:
        """Returns arrays of fixed size, made from the shapes of the clip alone."""
        ...


@runtime_checkable
class NextClip(Protocol):
    """Looks at the next clip of a video."""

    def __call__(self, state: Any, clip: Clip, /) -> tuple[Any, Predictions]:
        """Returns the state for the next clip, and what is known now.

        The state that was passed is not used again: its memory may be.
        """
        ...


@runtime_checkable
class Compile(Protocol):
    """Makes a step ready to run."""

    def __call__(self, state: Any, clip: Clip, /) -> None:
        """Compiles it for arguments of these shapes, unless that was done before."""
        ...


@runtime_checkable
class ClipMemory(Protocol):
    """Memory that a step needs."""

    def __call__(self, clip: Clip, /) -> int:
        """Returns bytes of the device, found from the shapes of the clip alone."""
        ...


class Program(NamedTuple):
    """A system with its variables, compiled or about to be, and how it is used.

    Attributes:
      start, step: of the system.
      window, render, limit: see `systems.system.System`.
      canvases: height and width in pixels of the only canvases it runs on; () = any.
      memory: that a step needs; None: not known.
      compile: makes a step ready; None: it is compiled before, or as it first runs.
    """

    start: StartClips
    step: NextClip
    window: Window
    render: Render
    limit: str
    canvases: tuple[tuple[int, int], ...] = ()
    memory: ClipMemory | None = None
    compile: Compile | None = None


def run_program(program: Program, sizing: Sizing) -> Stream:
    """What runs a program on videos, whose frames are resized to the sizes."""

    def stream(
        frames: Iterable[np.ndarray], *, clock: Clock = NO_CLOCK
    ) -> Iterator[FrameResult]:
        state = None
        waiting: Iterator[FrameResult] = iter(())
        canvases = program.canvases
        pieces = read_pieces(frames, program.window, sizing, clock, canvases)
        with closing(Ahead(pieces)) as ahead:
            while True:
                if not ahead.ready():
                    yield from waiting
                try:
                    piece = ahead.take()
                except Exception:
                    yield from waiting  # what was final before does not get lost
                    raise
                if piece is None:
                    break
                if state is None:
                    state = begin(program, piece.clip, clock)
                with clock("model"):
                    state, found = program.step(state, piece.clip)
                # The device goes on while masks become run lengths: those of the clip
                # before while it works on this one.
                last = waiting
                waiting = final_frames(found, piece, program.render, clock)
                yield from last
            yield from waiting

    return lambda frames, *, clock=NO_CLOCK: noting_lost(
        stream(frames, clock=clock), program.limit
    )


def begin(program: Program, clip: Clip, clock: Clock) -> Any:
    """The state before the first clip of a video, once the program is compiled.

    Args:
      program: to run.
      clip: the first one, of the shapes of all.
      clock: measures how long compiling takes.
    """
    with clock("compiling"):
        state = program.start(clip)
        if program.compile is not None:
            program.compile(state, clip)
    return state


def noting_lost(frames: Iterator[FrameResult], limit: str) -> Iterator[FrameResult]:
    """The frames, and a warning where objects found no free track.

    Of a video without an end nobody sees the last one: the first such frame is named.

    Args:
      frames: of a video.
      limit: the setting that says how many tracks there can be.
    """
    lost = 0
    for frame in frames:
        if frame.tracks.lost and not lost:
            logging.warning(
                "frame %d: no track is free for another object: raise %s",
                frame.frame,
                limit,
            )
        lost = frame.tracks.lost
        yield frame
    if lost:
        logging.warning("%d objects of a video found no free track", lost)


def final_frames(
    found: Predictions, piece: Piece, render: Render, clock: Clock
) -> Iterator[FrameResult]:
    """The frames of a clip that are final, in order.

    The device begins to enlarge their masks with the call, not with the first frame.

    Args:
      found: what the system says of the clip.
      piece: the clip.
      render: how masks that overlap become pixels.
      clock: measures the wait for the model, and how long masks take.
    """
    begin = max(-piece.first, 0)  # rows before the first frame of the video
    rows = range(begin, max(piece.rows, begin))
    masks = frame_masks(found, piece.sizes, render, rows=rows, at_once=piece.at_once)

    def results() -> Iterator[FrameResult]:
        with clock("model"):
            jax.block_until_ready(found)
        tracks, numbers = live_tracks(found)
        slots = np.asarray(found.slots)
        for row in rows:
            with clock("masks"):
                objects, pixels = next(masks)
                segmentations = run_lengths(pixels)
            places = numbers[slots[row, objects]]
            yield FrameResult(
                piece.first + row, tracks, places, segmentations, piece.sizes.original
            )

    return results()


def live_tracks(found: Predictions) -> tuple[LiveTracks, np.ndarray]:
    """The tracks that are valid, and the place of every slot among them, -1 if none."""
    valid = np.asarray(found.valid)
    tracks = LiveTracks(
        np.asarray(found.track_ids)[valid],
        np.asarray(found.class_probs)[valid],
        int(found.lost),
    )
    return tracks, np.where(valid, np.cumsum(valid) - 1, -1)

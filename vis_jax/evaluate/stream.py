"""Tracks the objects of one video, frame by frame, at the original size.

The system is compiled once for each canvas and clip length. Its masks leave the device
a few frames at a time and are encoded as RLE at once, so that memory holds one clip at
model size, never a whole video of masks at the original size. Exported models run here,
too: nothing here needs Flax or a config.
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
    """Creates the state before the first clip of a video."""

    def __call__(self, clip: Clip, /) -> Any:
        """Returns arrays of fixed size, made from the shapes of the clip alone."""
        ...


@runtime_checkable
class NextClip(Protocol):
    """Processes the next clip of a video."""

    def __call__(self, state: Any, clip: Clip, /) -> tuple[Any, Predictions]:
        """Returns the state for the next clip, and the predictions so far.

        The state passed in must not be used again: its memory may be reused.
        """
        ...


@runtime_checkable
class Compile(Protocol):
    """Compiles a step."""

    def __call__(self, state: Any, clip: Clip, /) -> None:
        """Compiles it for arguments of these shapes, unless already done."""
        ...


@runtime_checkable
class ClipMemory(Protocol):
    """Estimates the memory of a step."""

    def __call__(self, clip: Clip, /) -> int:
        """Returns bytes on the device, from the shapes of the clip alone."""
        ...


class Program(NamedTuple):
    """System bound to its variables, with the conventions for calling it.

    Attributes:
      start, step: `start` and `step` of the system.
      window, render, limit: see `systems.system.System`.
      canvases: height and width in pixels of the only canvases it runs on; () = any.
      memory: estimates the memory of a step; None: unknown.
      compile: compiles a step; None: already compiled, or compiled by its first run.
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
    """Returns the function that runs a program on videos, resizing their frames."""

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
                    yield from waiting  # do not lose frames that are final already
                    raise
                if piece is None:
                    break
                if state is None:
                    state = begin(program, piece.clip, clock)
                with clock("model"):
                    state, found = program.step(state, piece.clip)
                # Overlap host and device: encode the previous clip's masks while the
                # device works on this clip.
                last = waiting
                waiting = final_frames(found, piece, program.render, clock)
                yield from last
            yield from waiting

    return lambda frames, *, clock=NO_CLOCK: noting_lost(
        stream(frames, clock=clock), program.limit
    )


def begin(program: Program, clip: Clip, clock: Clock) -> Any:
    """Compiles the program and returns the state before the first clip.

    Args:
      program: to run.
      clip: the first one; all clips of the video have its shapes.
      clock: times compilation.
    """
    with clock("compiling"):
        state = program.start(clip)
        if program.compile is not None:
            program.compile(state, clip)
    return state


def noting_lost(frames: Iterator[FrameResult], limit: str) -> Iterator[FrameResult]:
    """Yields the frames, and warns if objects found no free track.

    Warns at the first such frame, as an endless video never reaches the total at its
    end.

    Args:
      frames: frames of a video.
      limit: setting that limits the number of tracks.
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
    """Yields the final frames of a clip, in order.

    The device starts upsampling their masks at the call, not at the first `next`.

    Args:
      found: predictions of the system for the clip.
      piece: the clip.
      render: rule for overlapping masks.
      clock: times the wait for the model, and the masks.
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
    """Returns the valid tracks, and each slot's index among them, -1 if not valid."""
    valid = np.asarray(found.valid)
    tracks = LiveTracks(
        np.asarray(found.track_ids)[valid],
        np.asarray(found.class_probs)[valid],
        int(found.lost),
    )
    return tracks, np.where(valid, np.cumsum(valid) - 1, -1)

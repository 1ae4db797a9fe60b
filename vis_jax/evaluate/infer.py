"""From the frames of one video to its objects, frame by frame, at the original size.

The system runs once for each canvas and number of frames of a clip. Its masks leave the
device a few frames at a time and become run lengths at once, so that memory holds one
clip at model size, and no video of masks at the original size.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing

import jax
import numpy as np
from absl import logging

from vis_jax.evaluate import views
from vis_jax.evaluate.ahead import Ahead
from vis_jax.evaluate.clips import Piece, read_pieces
from vis_jax.evaluate.masks import frame_masks, run_lengths
from vis_jax.results.clock import NO_CLOCK, Clock
from vis_jax.results.frame import FrameResult, LiveTracks
from vis_jax.results.stream import Stream
from vis_jax.structures import Predictions, Render
from vis_jax.systems.system import System, TestSettings


def make_stream(system: System, variables: dict, test: TestSettings) -> Stream:
    """What runs a system on videos.

    Args:
      system: what to run.
      variables: its parameters.
      test: the sizes that frames are resized to; `tta`, short sides to average over.
    """
    if test.tta:
        return views.make_stream(system, variables, test)
    variables = jax.device_put(variables)
    start, step = jax.jit(system.start), jax.jit(system.step, donate_argnums=1)

    def stream(
        frames: Iterable[np.ndarray], *, clock: Clock = NO_CLOCK
    ) -> Iterator[FrameResult]:
        state = None
        waiting: Iterator[FrameResult] = iter(())
        pieces = read_pieces(frames, system.window, test, clock)
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
                with clock("model"):
                    state = start(piece.clip) if state is None else state
                    state, found = step(variables, state, piece.clip)
                # The device goes on while masks become run lengths: those of the clip
                # before while it works on this one.
                last = waiting
                waiting = final_frames(found, piece, system.render, clock)
                yield from last
            yield from waiting

    return lambda frames, *, clock=NO_CLOCK: noting_lost(
        stream(frames, clock=clock), system.limit
    )


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

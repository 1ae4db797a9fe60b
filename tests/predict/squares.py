"""Makes predictions of moving squares without a model."""

import numpy as np
from pycocotools import mask as rle

from vis_jax.predict.loop import Finder, predict
from vis_jax.predict.writer import RequestedOutputs
from vis_jax.results.clock import NO_CLOCK
from vis_jax.results.frame import FrameResult, LiveTracks

H, W, T = 72, 96, 4
CATEGORIES = ((3, "cat"), (7, "dog"))
FILES = ["results.json", "tracks.jsonl", "video.json"]
TRACKS = LiveTracks(
    np.array([4, 1, 9], np.int32),
    np.array([[0.1, 0.9], [0.6, 0.0], [0.0, 0.2]], np.float32),
)


def square(x, t):
    """Returns the mask of a square that moves right."""
    mask = np.zeros((H, W), bool)
    mask[40:64, x + 2 * t : x + 2 * t + 24] = True
    return mask


def encoded(mask):
    return rle.encode(np.asfortranarray(mask))


def frame_of(t, tracks=TRACKS):
    """Returns a frame of three squares, absent from the last frame."""
    rows = np.arange(3 if t < T - 1 else 0)
    masks = [encoded(square(x, t)) for x in (4, 16, 60)[: len(rows)]]
    return FrameResult(t, tracks, rows, masks, (H, W))


def squares(frames, *, clock=NO_CLOCK):
    for t, frame in enumerate(frames):
        assert (frame == 40 + t).all() and frame.shape == (H, W, 3)
        yield frame_of(t)


def never(frames, *, clock=NO_CLOCK):
    raise AssertionError("the arguments are checked first")


def saying(*results):
    def stream(frames, *, clock=NO_CLOCK):
        for _ in frames:
            pass
        yield from results

    return stream


def run(source, output, stream=squares, *, top=3, **options):
    finder = Finder(stream, CATEGORIES, top, options.pop("whole", False))
    names = ("overwrite", "clock")
    more = {name: options.pop(name) for name in names if name in options}
    return predict(
        source,
        output,
        finder,
        wanted=wanted_of(**options),
        **more,
    )


def wanted_of(*, draw_video=True, write_pngs=False, **more):
    drawn = ["mp4"] if draw_video else []
    formats = ("json", "jsonl", *drawn, *(["ids"] if write_pngs else []))
    return RequestedOutputs(**({"formats": formats} | more))


def write_squares(source, output, stream=squares, **options):
    return run(source, output, stream, **options).outputs


def names_in(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())

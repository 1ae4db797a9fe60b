"""Rotates and mirrors decoded frames upright."""

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from vis_jax.predict.errors import PredictError

if TYPE_CHECKING:
    from av import VideoFrame

_SKEW = 0.02  # tolerance relative to the matrix's scale: about one degree


class Orientation(NamedTuple):
    """Transpose and flips that turn a decoded frame upright."""

    transpose: bool  # applied first
    flip_rows: bool
    flip_columns: bool

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the upright frame as a view of [H, W, 3]."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        rows, columns = (-1 if flip else 1 for flip in self[1:])
        return pixels[::rows, ::columns]


def orientation(frame: "VideoFrame", name: str) -> Orientation:
    """Reads the orientation from the display matrix of a frame.

    A pixel at column p, row q of the decoded frame is shown at column a p + c q, row
    b p + d q, up to an offset.

    Source: ISO 14496-12, 6.2.2; libavutil/display.h.

    Raises:
      PredictError: the matrix is not a combination of quarter turns and mirroring.
    """
    data = cast("bytes | None", frame.side_data.get("DISPLAYMATRIX"))
    if data is None:
        return Orientation(False, False, False)
    (a, b, _), (c, d, _), _ = np.frombuffer(data, "=i4").reshape(3, 3).tolist()
    small = _SKEW * max(abs(x) for x in (a, b, c, d))
    if max(abs(b), abs(c)) <= small < min(abs(a), abs(d)):
        return Orientation(False, d < 0, a < 0)
    if max(abs(a), abs(d)) <= small < min(abs(b), abs(c)):
        return Orientation(True, b < 0, c < 0)
    if not small:  # all zero, as written by some encoders
        return Orientation(False, False, False)
    matrix = [[round(x / 65536, 3) for x in row] for row in ((a, b), (c, d))]
    raise PredictError(
        f"{name}: display matrix: expected quarter turns and mirroring, got {matrix}"
    )


def upright_size(frame: "VideoFrame", name: str) -> tuple[int, int]:
    """Returns height and width in pixels of the upright frame."""
    if orientation(frame, name).transpose:
        return frame.width, frame.height
    return frame.height, frame.width

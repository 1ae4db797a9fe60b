"""Any detector with any tracker: objects are found frame by frame, then linked."""

from collections.abc import Callable
from typing import NamedTuple

from vis_jax.structures import Detections
from vis_jax.typing import Array, Float32


class Appearance(NamedTuple):
    """Descriptions of objects, as in `Detections`."""

    embeds: Float32[Array, "*lead N E"]
    looks: Float32[Array, "*lead N F"]


class Detector(NamedTuple):
    """Two pure functions on frames of one video."""

    # (variables, images uint8 [T, H, W, 3], size int32 [2]) -> Detections [T, N]
    detect: Callable[[dict, Array, Array], Detections]
    # (variables, images, size, boxes float32 [T, N, 4]) -> Appearance [T, N] of boxes
    # that come from elsewhere, such as the truth
    describe: Callable[[dict, Array, Array, Array], Appearance]

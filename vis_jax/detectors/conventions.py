"""Conventions of libraries for turning outputs of the same Mask R-CNN into boxes.

A published detector finds what its authors report only under the conventions that it
was trained with: half a cell of shift in RoIAlign costs more than most changes of a
model.
"""

from typing import NamedTuple

from vis_jax.ops.box_coder import BOTH, UPPER
from vis_jax.ops.roi_align import ALIGNED, LEGACY, UNALIGNED, Adaptive, Convention


class Conventions(NamedTuple):
    """Conventions of one library; see the types of the fields.

    Attributes:
      centre, rounded: of `AnchorGrid`.
      log_range: of `BoxCoder`.
      least_proposal, least_detection: narrower boxes are dropped, in pixels.
      roi: where a box lies on a map.
      samples: points of RoIAlign per axis and cell.
    """

    centre: float
    rounded: bool
    log_range: tuple[float, float]
    least_proposal: float
    least_detection: float
    roi: Convention
    samples: int | Adaptive


MMDETECTION = Conventions(0.5, True, BOTH, 0.0, 0.0, LEGACY, 2)  # before 2.0
# Deviation: mmdetection 2 reads as many points as detectron2, see there.
MMDETECTION2 = Conventions(0.0, False, BOTH, 0.0, 0.0, ALIGNED, Adaptive(8))
# Deviation: torchvision divides the canvas by the size of a map to get its stride; that
# is not 64 at the last level where the canvas is no multiple of it.
TORCHVISION = Conventions(0.0, True, UPPER, 1e-3, 1e-2, UNALIGNED, 2)
# Deviation: detectron2 reads any number of points. Eight are enough for regions of the
# finest level (up to 112 pixels a side) that are up to four times as long as wide.
DETECTRON2 = Conventions(0.0, False, UPPER, 1e-6, 0.0, ALIGNED, Adaptive(8))

CONVENTIONS = {
    "mmdetection": MMDETECTION,
    "mmdetection2": MMDETECTION2,
    "torchvision": TORCHVISION,
    "detectron2": DETECTRON2,
}

"""Box and RoI conventions of different libraries for the same Mask R-CNN.

A published detector reproduces its reported results only with the conventions of its
training: half a cell of shift in RoIAlign costs more than most model changes.
"""

from typing import NamedTuple

from vis_jax.ops.box_coder import BOTH, UPPER
from vis_jax.ops.roi_align import ALIGNED, LEGACY, UNALIGNED, Adaptive, Convention


class Conventions(NamedTuple):
    """Conventions of one library; see the types of the fields.

    Attributes:
      centre, rounded: fields of `AnchorGrid`.
      log_range: field of `BoxCoder`.
      least_proposal, least_detection: minimum side in pixels.
      roi: box alignment on a feature map.
      samples: RoIAlign points per axis and cell.
    """

    centre: float
    rounded: bool
    log_range: tuple[float, float]
    least_proposal: float
    least_detection: float
    roi: Convention
    samples: int | Adaptive


MMDETECTION = Conventions(0.5, True, BOTH, 0.0, 0.0, LEGACY, 2)  # before 2.0
# Deviation: mmdetection 2 uses adaptive sampling like detectron2, see below.
MMDETECTION2 = Conventions(0.0, False, BOTH, 0.0, 0.0, ALIGNED, Adaptive(8))
# Deviation: torchvision derives the stride from canvas and map sizes; at the last level
# it is not 64 if the canvas is not a multiple of 64.
TORCHVISION = Conventions(0.0, True, UPPER, 1e-3, 1e-2, UNALIGNED, 2)
# Deviation: detectron2 does not bound the number of points. Eight are enough for
# regions of the finest level (up to 112 pixels a side) with aspect ratios up to four.
DETECTRON2 = Conventions(0.0, False, UPPER, 1e-6, 0.0, ALIGNED, Adaptive(8))

CONVENTIONS = {
    "mmdetection": MMDETECTION,
    "mmdetection2": MMDETECTION2,
    "torchvision": TORCHVISION,
    "detectron2": DETECTRON2,
}

"""How objects are drawn, without what draws them."""

from typing import NamedTuple


class Style(NamedTuple):
    """How objects are drawn."""

    opacity: float = 0.45  # of the fill, 0 .. 1
    line_width: float = (
        0.0  # pixels, of outlines and boxes; 0 = by the size of the frame
    )
    labels: bool = True
    boxes: bool = False
    trails: int = 0  # frames whose path is drawn; 0 = none


STYLE = Style()

"""Peak figures of accelerator chips and a roofline bound on step time.

Sources of the figures: docs/scaling.md. Roofline: Williams et al., "Roofline", CACM
2009; effects it ignores make a step longer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vis_jax.training.hlo import Collective


class Chip(NamedTuple):
    """Peak figures of one chip; bandwidths are unidirectional."""

    flops: float  # dense bfloat16 FLOP/s, a multiply-add being 2
    memory: float  # bytes
    bandwidth: float  # memory bandwidth, bytes per second
    link: float  # to chips of the same domain, bytes per second
    domain: int  # number of chips joined by such links
    network: float  # to other domains, bytes per second per chip


CHIPS = {
    "H100": Chip(989e12, 80e9, 3.35e12, 450e9, 8, 50e9),
    "H200": Chip(989e12, 141e9, 4.8e12, 450e9, 8, 50e9),
    "v5e": Chip(197e12, 16e9, 0.8e12, 200e9, 256, 3.125e9),
    "v5p": Chip(459e12, 95e9, 2.765e12, 600e9, 8960, 6.25e9),
    "v6e": Chip(918e12, 32e9, 1.6e12, 400e9, 256, 12.5e9),
}


class Roofline(NamedTuple):
    """Seconds that each part of a step takes on one chip."""

    compute: float
    memory: float
    communication: float

    @property
    def least(self) -> float:
        """Time if all parts overlap fully."""
        return max(self)

    @property
    def most(self) -> float:
        """Time if parts run one after the other, each at its peak."""
        return sum(self)


def roofline(
    chip: Chip, *, flops: float, moved: float, exchanged: Sequence[Collective]
) -> Roofline:
    """Computes the minimum time of a step.

    Args:
      chip: type of chip.
      flops: floating-point operations per chip.
      moved: bytes that one chip reads from and writes to its memory.
      exchanged: collectives between the chips.
    """
    return Roofline(
        compute=flops / chip.flops,
        memory=moved / chip.bandwidth,
        communication=sum(_seconds(one, chip) for one in exchanged),
    )


def _seconds(one: Collective, chip: Chip) -> float:
    """Returns the time of a collective over links, or over the network across domains.

    A ring across domains leaves each domain once per member, over that member's own
    network connection.
    """
    domains = one.groups // chip.domain
    if (domains == domains[:, :1]).all():
        return one.sent / chip.link
    members = min(np.unique(row, return_counts=True)[1].min() for row in domains)
    return max(one.sent / chip.link, one.sent / (members * chip.network))

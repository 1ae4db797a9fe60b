"""Peak figures of chips, and the least time that a step can take on them.

Sources of the figures: docs/scaling.md. A roofline: Williams et al., "Roofline", CACM
2009; what it leaves out makes a step longer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vis_jax.training.hlo import Collective


class Chip(NamedTuple):
    """Peak figures of one chip; bytes per second are those of one direction."""

    flops: float  # bfloat16 multiply-adds count 2; without sparsity, per second
    memory: float  # bytes
    bandwidth: float  # of the memory, bytes per second
    link: float  # to the chips of its domain, bytes per second
    domain: int  # chips that such links join
    network: float  # to other domains, bytes per second of one chip


CHIPS = {
    "H100": Chip(989e12, 80e9, 3.35e12, 450e9, 8, 50e9),
    "H200": Chip(989e12, 141e9, 4.8e12, 450e9, 8, 50e9),
    "v5e": Chip(197e12, 16e9, 0.8e12, 200e9, 256, 3.125e9),
    "v5p": Chip(459e12, 95e9, 2.765e12, 600e9, 8960, 6.25e9),
    "v6e": Chip(918e12, 32e9, 1.6e12, 400e9, 256, 12.5e9),
}


class Roofline(NamedTuple):
    """Seconds of a step on one chip, each part by itself."""

    compute: float
    memory: float
    communication: float

    @property
    def least(self) -> float:
        """All parts at the same time."""
        return max(self)

    @property
    def most(self) -> float:
        """One part after the other, each at its peak."""
        return sum(self)


def roofline(
    chip: Chip, *, flops: float, moved: float, exchanged: Sequence[Collective]
) -> Roofline:
    """The least time of a step.

    Args:
      chip: what it runs on.
      flops: of one chip.
      moved: bytes that one chip reads from its memory, or writes there.
      exchanged: between the chips.
    """
    return Roofline(
        compute=flops / chip.flops,
        memory=moved / chip.bandwidth,
        communication=sum(_seconds(one, chip) for one in exchanged),
    )


def _seconds(one: Collective, chip: Chip) -> float:
    """Over the links of a domain; beyond it, over the network of all its members.

    A ring through several domains leaves each of them once for each member that it has
    there, over that member's own network.
    """
    domains = one.groups // chip.domain
    if (domains == domains[:, :1]).all():
        return one.sent / chip.link
    members = min(np.unique(row, return_counts=True)[1].min() for row in domains)
    return max(one.sent / chip.link, one.sent / (members * chip.network))

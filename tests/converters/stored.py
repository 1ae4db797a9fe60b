"""Files of stored cases as shapes, and what a whole conversion of them has to do."""

import numpy as np

from tests.golden.cases import load
from vis_jax.converters.rules import ConvertReport


def blank(case: str) -> dict[str, np.ndarray]:
    """Shapes of a case's model by official name, one number each.

    Args:
      case: its name.
    """
    entries = load(case).manifest["parameters"]["model"]
    return {
        x["name"]: np.broadcast_to(np.float32(i), x["shape"])
        for i, x in enumerate(entries)
    }


def check_whole(report: ConvertReport, names: set[str]) -> None:
    """Every tensor is used once; counters alone are dropped, and nothing is new."""
    assert report.new == ()
    assert set(report.used) | set(report.dropped) == names
    assert all(name.endswith(".num_batches_tracked") for name in report.dropped)
    targets = [path for paths in report.used.values() for path in paths]
    assert len(targets) == len(set(targets)) == len(report.used)

"""Reads the shapes of stored cases, and checks their complete conversion."""

import numpy as np

from tests.golden.cases import load
from vis_jax.converters.rules import ConvertReport


def blank(case: str) -> dict[str, np.ndarray]:
    """Returns arrays with the shapes of a case's weights, constant, by official name.

    Args:
      case: its name.
    """
    entries = load(case).manifest["parameters"]["model"]
    return {
        x["name"]: np.broadcast_to(np.float32(i), x["shape"])
        for i, x in enumerate(entries)
    }


def check_whole(report: ConvertReport, names: set[str]) -> None:
    """Checks that each tensor is used once, only counters dropped, and nothing new."""
    assert report.new == ()
    assert set(report.used) | set(report.dropped) == names
    assert all(name.endswith(".num_batches_tracked") for name in report.dropped)
    targets = [path for paths in report.used.values() for path in paths]
    assert len(targets) == len(set(targets)) == len(report.used)

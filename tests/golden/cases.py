"""Reading the stored cases: reference arrays, generated weights, tolerances."""

import functools
import json
from pathlib import Path

import numpy as np

from tests.golden import golden_weights

FOLDER = Path(__file__).parent


class Case:
    """One case: a manifest and the arrays beside it.

    Attributes:
      manifest: see `golden_weights.py` for its parameters.
      arrays: stored arrays by name.
    """

    def __init__(self, path: Path):
        self.manifest = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz")) as stored:
            self.arrays = {name: stored[name] for name in stored.files}

    def weights(self, group: str | None = None) -> dict[str, np.ndarray]:
        """Generated weights by official name."""
        return golden_weights.state_dict(self.manifest, group)

    def outputs(self) -> list[str]:
        """Names of all arrays but the inputs."""
        arrays = self.manifest["arrays"]
        return [name for name in self.arrays if arrays[name]["role"] != "input"]

    def subsample(self, name: str, full: np.ndarray) -> np.ndarray:
        """The part of a full array that is stored."""
        index = self.manifest["arrays"][name].get("subsample")
        if index is None:
            return full
        return full[tuple(_slice(part) for part in index.strip("[]").split(","))]

    def error(self, name: str, full: np.ndarray) -> tuple[float, float]:
        """Largest error of an array and what it may be, by the rules of the case.

        The error is in units of the allowed one where that depends on the entry.
        """
        entry = self.manifest["arrays"][name]
        stored, ours = self.arrays[name], self.subsample(name, np.asarray(full))
        if ours.shape != stored.shape:
            raise ValueError(f"{name}: expected {stored.shape}, got {ours.shape}")
        if stored.dtype.kind in "iub":
            return _count_error(stored, ours, "differing_pixels" in str(entry))
        largest = np.abs(stored).max(initial=0.0)
        difference = np.abs(ours.astype(np.float64) - stored)
        if "rtol_of_max" in entry.get("tolerance", {}):
            return float(difference.max() / largest), entry["tolerance"]["rtol_of_max"]
        tolerance = {**self.manifest["tolerance"], **entry.get("tolerance", {})}
        allowed = tolerance["atol"] * max(1.0, largest) + tolerance["rtol"] * np.abs(
            stored
        )
        worst = np.unravel_index(np.argmax(difference / allowed), difference.shape)
        return float(difference[worst]), float(allowed[worst])

    def check(self, name: str, full: np.ndarray) -> None:
        """Raises AssertionError if an array is further off than it may be."""
        error, limit = self.error(name, full)
        assert error <= limit, f"{name}: error {error:.3g}, allowed {limit:.3g}"


@functools.cache
def load(name: str) -> Case:
    """The stored case of this name."""
    return Case(FOLDER / f"{name}.json")


def _count_error(stored, ours, few: bool) -> tuple[float, float]:
    """Entries that differ, none allowed; with `few`, pixels of masks or of areas."""
    if not few:
        return float(np.sum(ours != stored)), 0.0
    if stored.dtype == np.uint8:  # packed masks
        differing, pixels = np.unpackbits(ours ^ stored).sum(), 8 * stored.size
    else:
        differing, pixels = np.abs(ours - stored).max(), stored.max()
    return float(differing), 4.0 + 2e-4 * float(pixels)


def nhwc(array: np.ndarray) -> np.ndarray:
    """[N, C, H, W] to [N, H, W, C]."""
    return np.moveaxis(array, -3, -1)


def nchw(array: np.ndarray) -> np.ndarray:
    """[N, H, W, C] to [N, C, H, W]."""
    return np.moveaxis(np.asarray(array), -1, -3)


def _slice(text: str) -> slice:
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    return slice(*parts)

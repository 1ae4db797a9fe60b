"""Reads the stored cases: reference arrays, generated weights, tolerances."""

import functools
import json
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tests.golden import golden_weights

FOLDER = Path(__file__).parent

Results = dict[str, np.ndarray]  # our arrays by stored name


class CaseError(ValueError):
    """An incomplete or damaged case; one line that names the file."""


class Entries(dict):
    """Entries of a file; access to a missing one is an error that names the file."""

    def __init__(self, where: str, values: dict):
        super().__init__(values)
        self.where = where

    def __missing__(self, name):
        raise CaseError(f"{self.where}: expected an entry {name!r}, got none")


class Case:
    """Stored case: a manifest and its arrays.

    Attributes:
      path: of the manifest.
      manifest: see `golden_weights.py` for its parameters.
      arrays: stored arrays by name.
      rounding: additional tolerance by array, if a comparison knows the effect of
        float32 on it.

    Raises:
      CaseError: the files are missing, damaged or inconsistent.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rounding: dict[str, np.ndarray] = {}
        self.manifest = _read_manifest(path)
        self.arrays = _read_arrays(path.with_suffix(".npz"))
        for name, entry in self.manifest["arrays"].items():
            if self.arrays[name].shape != tuple(entry["shape"]):
                raise CaseError(
                    f"{self.arrays.where}: {name}: expected shape {entry['shape']}, got"
                    f" {self.arrays[name].shape}"
                )
        for name in self.arrays:
            self.manifest["arrays"][name]  # an array that is not listed is an error

    def weights(self, group: str | None = None) -> dict[str, np.ndarray]:
        """Returns generated weights by official name."""
        return golden_weights.state_dict(self.manifest, group)

    def outputs(self) -> list[str]:
        """Returns the names of all arrays except inputs."""
        arrays = self.manifest["arrays"]
        return [name for name in self.arrays if arrays[name]["role"] != "input"]

    def subsample(self, name: str, full: np.ndarray) -> np.ndarray:
        """Returns the stored part of a full array."""
        index = self.manifest["arrays"][name].get("subsample")
        if index is None:
            return full
        return full[tuple(_slice(part) for part in index.strip("[]").split(","))]

    def error(self, name: str, full: np.ndarray) -> tuple[float, float]:
        """Returns the largest error of an array and its tolerance in the case.

        The error is relative to the tolerance if that depends on the entry.
        """
        entry = self.manifest["arrays"][name]
        stored, ours = self.arrays[name], self.subsample(name, np.asarray(full))
        if ours.shape != stored.shape:
            raise ValueError(f"{name}: expected {stored.shape}, got {ours.shape}")
        if stored.dtype.kind in "iub":
            return _count_error(stored, ours, "differing_pixels" in str(entry))
        if not stored.size:
            return 0.0, 0.0
        # NaN and infinities must be equal on both sides.
        unknown = ~np.isfinite(stored)
        if not np.array_equal(stored[unknown], ours[unknown], equal_nan=True):
            return np.inf, 0.0
        if (unknown != ~np.isfinite(ours)).any():
            return np.inf, 0.0
        stored, ours = (np.where(unknown, 0, x) for x in (stored, ours))
        largest = np.abs(stored).max(initial=0.0)
        difference = np.abs(ours.astype(np.float64) - stored)
        if "rtol_of_max" in entry.get("tolerance", {}):
            share = difference.max() / max(largest, np.finfo(np.float32).tiny)
            return float(share), entry["tolerance"]["rtol_of_max"]
        tolerance = {**self.manifest["tolerance"], **entry.get("tolerance", {})}
        allowed = tolerance["atol"] * max(1.0, largest)
        allowed = allowed + tolerance["rtol"] * np.abs(stored)
        allowed = allowed + self.rounding.get(name, 0.0)
        worst = np.unravel_index(np.argmax(difference / allowed), difference.shape)
        return float(difference[worst]), float(allowed[worst])

    def check(self, name: str, full: np.ndarray) -> None:
        """Raises AssertionError if the error of an array exceeds its tolerance."""
        error, limit = self.error(name, full)
        assert error <= limit, f"{name}: error {error:.3g}, allowed {limit:.3g}"


@functools.cache
def load(name: str) -> Case:
    """Loads the stored case of this name."""
    return Case(FOLDER / f"{name}.json")


def _read_manifest(path: Path) -> Entries:
    """Reads a manifest and checks for the fields of every case."""
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise CaseError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise CaseError(f"{path}: expected JSON: {error}") from error
    if not isinstance(values, dict):
        raise CaseError(f"{path}: expected an object, got {type(values).__name__}")
    manifest = Entries(str(path), values)
    for name in ("arrays", "parameters", "settings", "tolerance"):
        if not isinstance(manifest[name], dict):
            kind = type(manifest[name]).__name__
            raise CaseError(f"{path}: {name}: expected an object, got {kind}")
        manifest[name] = Entries(f"{path}: {name}", manifest[name])
    for name in ("case", "seed"):
        manifest[name]  # must be there
    for name, entry in manifest["arrays"].items():
        if not isinstance(entry, dict) or not {"role", "shape"} <= entry.keys():
            raise CaseError(f"{path}: arrays: {name}: expected a role and a shape")
    return manifest


def _read_arrays(path: Path) -> Entries:
    """Reads all arrays of a file."""
    try:
        with path.open("rb") as file:
            stored = np.load(file)
            names = getattr(stored, "files", [])
            arrays = {name: stored[name] for name in names}
    except OSError as error:
        raise CaseError(f"{path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CaseError(f"{path}: expected arrays of NumPy: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise CaseError(f"{path}: {name}: expected an array of NumPy")
    return Entries(str(path), arrays)


def _count_error(stored, ours, few: bool) -> tuple[float, float]:
    """Counts differing entries, tolerance 0, or with `few` differing mask pixels."""
    if not few:
        return float(np.sum(ours != stored)), 0.0
    if stored.dtype == np.uint8:  # packed masks
        differing, pixels = np.unpackbits(ours ^ stored).sum(), 8 * stored.size
    else:
        differing, pixels = np.abs(ours - stored).max(), stored.max()
    return float(differing), 4.0 + 2e-4 * float(pixels)


def instances(case: Case, prefix: str, last: str) -> list[str]:
    """Returns the names '<prefix>/<number>' with a stored quantity `last`."""
    pattern = re.compile(rf"({re.escape(prefix)}/\d+)/{re.escape(last)}")
    return [m[1] for m in map(pattern.fullmatch, case.arrays) if m]


def nhwc(array: np.ndarray) -> np.ndarray:
    """Converts [N, C, H, W] to [N, H, W, C]."""
    return np.moveaxis(array, -3, -1)


def nchw(array: np.ndarray) -> np.ndarray:
    """Converts [N, H, W, C] to [N, C, H, W]."""
    return np.moveaxis(np.asarray(array), -1, -3)


def _slice(text: str) -> slice | int:
    if ":" not in text:
        return int(text)
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    return slice(*parts)

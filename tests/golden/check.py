"""Compares our models with a stored case, array by array.

Run:   python -m tests.golden.check PATH/TO/mask2former_r50.json

Builds the model from the settings of the manifest, converts generated weights with
`vis_jax.converters`, runs it on the stored inputs and prints for every stored array
its name, the largest error, the error allowed and the verdict. Exits with 1 if an array
is further off than allowed or has no counterpart here.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import jax

from tests.golden import (
    deep_sort,
    mask2former,
    mask_rcnn,
    mask_rcnn_detectron2,
    mask_rcnn_losses,
    track_head,
)
from tests.golden.cases import Case


def _mask_rcnn(case: Case) -> dict:
    """Of detectron2's case no detections: it reads as many points as a region has."""
    if case.manifest["case"].endswith("detectron2"):
        return mask_rcnn_detectron2.compare(case)
    return mask_rcnn.compare(case) | mask_rcnn_losses.compare_losses(case)


# By the start of a case's name: case -> every stored array as we compute it.
COMPARISONS: dict[str, Callable[[Case], dict]] = {
    "deepsort": deep_sort.compare,
    "mask2former": functools.partial(mask2former.compare, gradients=True),
    "maskrcnn": _mask_rcnn,
    "masktrack": track_head.compare,
    "videomaskformer": functools.partial(mask2former.compare, gradients=True),
}


def main(path: str) -> int:
    """Prints the table of one case; returns the exit code."""
    case = Case(Path(path))
    kind = case.manifest["case"].split("_")[0]
    if kind not in COMPARISONS:
        known = sorted(COMPARISONS)
        raise ValueError(f"{path}: expected a case of {known}, got {kind!r}")
    results = COMPARISONS[kind](case)
    failures = 0
    for name in case.outputs():
        if name not in results:
            failures += 1
            print(f"{name:<70} NOT COVERED")
            continue
        error, limit = case.error(name, results[name])
        verdict = "ok" if error <= limit else "FAILS"
        failures += error > limit
        print(f"{name:<70} {error:<12.3g} {limit:<12.3g} {verdict}")
    print(f"{len(case.outputs())} arrays, {failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # Accelerators round matrix products unless told otherwise.
    jax.config.update("jax_default_matmul_precision", "highest")
    sys.exit(main(sys.argv[1]))

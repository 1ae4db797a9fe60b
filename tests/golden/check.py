"""Compares our models with a stored case, array by array.

Run:   python -m tests.golden.check PATH/TO/mask2former_r50.json

Builds the model from the settings of the manifest, converts generated weights with
`vis_jax.converters`, runs it on the stored inputs and prints for every stored array its
name, the largest error, the tolerance and the verdict. Exits with 1 if an array exceeds
its tolerance or has no counterpart here, and with 2 and one line if there is nothing to
compare.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from tests.golden import (
    backbones,
    deep_sort,
    eomt,
    evaluator_case,
    htc,
    iai,
    iai_losses,
    mask2former,
    mask_rcnn,
    mask_rcnn_detectron2,
    mask_rcnn_losses,
    operators,
    pmt,
    rgnn_vis,
    rgnn_vis_losses,
    track_head,
    videomt,
    videomt_train,
    yolact,
)
from tests.golden.cases import Case, CaseError


def _torchvision(case: Case) -> dict:
    return mask_rcnn.compare(case) | mask_rcnn_losses.compare_torchvision(case)


def _detectron2(case: Case) -> dict:
    losses = mask_rcnn_losses.compare_detectron2(case)
    return mask_rcnn_detectron2.compare(case) | losses


def _rgnn_vis(case: Case) -> dict:
    return rgnn_vis.compare(case) | rgnn_vis_losses.compare(case)


def _iai(case: Case) -> dict:
    if not any(name.startswith("loss/") for name in case.outputs()):
        return iai.compare(case)  # the case of the tests, which is kept small
    return iai.compare(case) | iai_losses.compare(case)


_mask2former = functools.partial(mask2former.compare, gradients=True)

# Comparisons by case name: case -> our arrays by stored name.
COMPARISONS: dict[str, Callable[[Case], dict]] = {
    "backbone_resnet50": backbones.compare_resnet,
    "backbone_swin_tiny": backbones.compare_swin,
    "deepsort": deep_sort.compare,
    "eomt_dinov3_vits": eomt.compare,
    "eomt_vits": eomt.compare,
    "evaluator": evaluator_case.compare,
    "htc_roi_heads": htc.compare,
    "iai_condinst_r50": _iai,
    "mask2former_r50": _mask2former,
    "mask2former_swin_tiny": _mask2former,
    "maskrcnn_r50_fpn_detectron2": _detectron2,
    "maskrcnn_r50_fpn_torchvision": _torchvision,
    "masktrack_track_head": track_head.compare,
    "ops": operators.compare,
    "pmt_lvmt_decoder": pmt.compare,
    "rgnnvis_r50": _rgnn_vis,
    "videomt_train_vits": videomt_train.compare,
    "videomt_vits": videomt.compare,
    "videomaskformer_r50": _mask2former,
    "videomaskformer_swin_tiny": _mask2former,
    "yolact_r50": yolact.compare,
}


def read_case(path: Path) -> Case:
    """Reads a case that has a comparison.

    Raises:
      CaseError: there is none, or the files are no case.
    """
    case = Case(path)
    name = case.manifest["case"]
    if not isinstance(name, str) or name not in COMPARISONS:
        known = ", ".join(sorted(COMPARISONS))
        raise CaseError(f"{path}: case: expected one of {known}, got {name!r}")
    return case


def print_table(case: Case, results: dict[str, np.ndarray]) -> int:
    """Prints a line for every stored array; returns the number of failed or missing."""
    failures = missing = 0
    for name in case.outputs():
        if name not in results:
            missing += 1
            print(f"{name:<70} NOT BUILT")
            continue
        ours = np.shape(case.subsample(name, np.asarray(results[name])))
        if ours != case.arrays[name].shape:
            failures += 1
            print(f"{name:<70} FAILS: shape {ours}, not {case.arrays[name].shape}")
            continue
        error, limit = case.error(name, results[name])
        # `error > limit` would be False for NaN.
        fails = not error <= limit
        failures += fails
        verdict = "FAILS" if fails else "ok"
        print(f"{name:<70} {error:<12.3g} {limit:<12.3g} {verdict}")
    count = len(case.outputs())
    print(f"{count} arrays, {failures} failures, {missing} not built")
    return failures + missing


def main(path: str) -> int:
    """Prints the table of one case; returns the exit code."""
    try:
        case = read_case(Path(path))
        results = COMPARISONS[case.manifest["case"]](case)
    except CaseError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        # Our models reject unsupported sizes and weights of other shapes.
        print(f"{path}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return int(print_table(case, results) > 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # Accelerators round matrix products unless told otherwise.
    jax.config.update("jax_default_matmul_precision", "highest")
    sys.exit(main(sys.argv[1]))

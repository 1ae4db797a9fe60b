import copy

import numpy as np
import pytest

from tests.golden import mask_rcnn, mask_rcnn_detectron2, mask_rcnn_losses
from tests.golden.cases import Case, load

LIBRARIES = {
    "torchvision": (mask_rcnn.compare, mask_rcnn_losses.compare_torchvision),
    "detectron2": (mask_rcnn_detectron2.compare, mask_rcnn_losses.compare_detectron2),
}


def _trained(name: str) -> bool:
    return name.startswith(("loss/", "grad/"))


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_stored_array_of_inference(library):
    case = load(f"maskrcnn_r50_fpn_{library}")
    results = LIBRARIES[library][0](case)
    names = [name for name in case.outputs() if not _trained(name)]
    assert len(names) > 30
    for name in names:
        case.check(name, results[name])


@pytest.mark.parametrize("library", LIBRARIES)
def test_losses_and_gradients(library):
    case = load(f"maskrcnn_r50_fpn_{library}")
    results = LIBRARIES[library][1](case)
    names = [name for name in case.outputs() if _trained(name)]
    assert len(names) == 10
    for name in names:
        case.check(name, results[name])


def _of_other_sizes(case: Case, sizes: list[tuple[int, int]]) -> Case:
    """The case with images of these heights and widths, and one object in the last."""
    case = copy.deepcopy(case)
    for i, size in enumerate(sizes):
        case.arrays[f"image/{i}"] = case.arrays[f"image/{i}"][:, : size[0], : size[1]]
        masks = case.arrays[f"targets/{i}/masks"]
        case.arrays[f"targets/{i}/masks"] = masks[:, : size[0], : size[1]]
        for name in ("boxes", "labels", "masks"):
            stored = case.arrays[f"targets/{i}/{name}"]
            case.arrays[f"targets/{i}/{name}"] = stored[: len(stored) - 2 * i]
    case.manifest["settings"]["transformed_sizes"] = [list(size) for size in sizes]
    return case


def test_another_canvas_and_unequal_numbers_of_objects():
    stored = load("maskrcnn_r50_fpn_torchvision")
    case = _of_other_sizes(stored, [(60, 70), (33, 64)])
    for compare in LIBRARIES["torchvision"]:
        for name, values in compare(case).items():
            assert np.isfinite(values).all(), name
            if name.startswith(("fpn/", "rpn/")) and values.ndim == 4:
                level = int(name[-1]) if name[-1].isdigit() else 4
                level -= 2 * name.startswith("fpn/p") * name[-1].isdigit()
                height, width = (-(-length // (4 << level)) for length in (64, 96))
                assert values.shape[2:] == (height, width), name

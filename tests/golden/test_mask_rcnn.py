import pytest

from tests.golden import mask_rcnn_detectron2
from tests.golden.cases import load
from tests.golden.mask_rcnn import compare
from tests.golden.mask_rcnn_losses import compare_losses

pytestmark = pytest.mark.slow

# Computed by torchvision between stored arrays that are compared.
INNER = {
    "given_rois/box_features",
    *(f"detections/{i}/masks" for i in range(2)),
}


def test_every_stored_array_of_inference():
    case = load("maskrcnn_r50_fpn_torchvision")
    results = compare(case)
    names = [n for n in case.outputs() if not n.startswith(("loss/", "grad/"))]
    assert len(names) > 30
    for name in names:
        if name not in INNER:
            case.check(name, results[name])


def test_losses_and_gradients():
    case = load("maskrcnn_r50_fpn_torchvision")
    results = compare_losses(case)
    names = [n for n in case.outputs() if n.startswith(("loss/", "grad/"))]
    assert len(names) == 10
    for name in names:
        case.check(name, results[name])


def test_detectron2_up_to_proposals_and_on_given_boxes():
    case = load("maskrcnn_r50_fpn_detectron2")
    results = mask_rcnn_detectron2.compare(case)
    assert len(results) == 27
    for name, values in results.items():
        case.check(name, values)

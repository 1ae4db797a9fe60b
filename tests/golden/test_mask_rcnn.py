import pytest

from tests.golden.cases import load
from tests.golden.mask_rcnn import compare

# Computed by torchvision between stored arrays that are compared.
INNER = {
    "given_rois/box_features",
    *(f"detections/{i}/masks" for i in range(2)),
}


@pytest.fixture(scope="module")
def results():
    return compare(load("maskrcnn_r50_fpn_torchvision"))


def test_every_stored_array_of_inference(results):
    case = load("maskrcnn_r50_fpn_torchvision")
    names = [n for n in case.outputs() if not n.startswith(("loss/", "grad/"))]
    assert len(names) > 30
    for name in names:
        if name not in INNER:
            case.check(name, results[name])

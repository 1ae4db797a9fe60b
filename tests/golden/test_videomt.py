import pytest

from tests.golden.cases import load
from tests.golden.check import COMPARISONS
from tests.golden.videomt import compare


def test_every_stored_array():
    """Two frames of VidEoMT: query blocks, propagated queries, classes and masks."""
    case = load("videomt_vits")
    results = compare(case)
    assert len(case.outputs()) == 12
    for name in case.outputs():
        case.check(name, results[name])


@pytest.mark.parametrize(
    ("stored", "count"),
    [("eomt_dinov3_small", 48), ("videomt_train_small", 38), ("pmt_small", 9)],
)
def test_training_and_successors_in_narrow_blocks(stored, count):
    """Masked attention, losses and gradients; fusion and gru over three frames."""
    case = load(stored)
    results = COMPARISONS[case.manifest["case"]](case)
    assert len(case.outputs()) == count
    for name in case.outputs():
        case.check(name, results[name])

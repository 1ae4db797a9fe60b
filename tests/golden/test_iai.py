import pytest

from tests.golden import iai
from tests.golden.cases import load


@pytest.mark.slow
def test_every_stored_array_of_the_image_model():
    case = load("iai_condinst_r50")
    results = iai.compare(case)
    # 4 stages; of 4 frames 5 levels, 5 outputs of each and features of masks; what the
    # masks of 2 frames are made of.
    assert len(results) == 4 + 4 * (5 + 25 + 1) + 2 * 8
    assert set(results) < set(case.outputs())
    for name, ours in results.items():
        case.check(name, ours)

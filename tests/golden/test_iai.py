import pytest

from tests.golden import iai, iai_losses
from tests.golden.cases import load


@pytest.mark.slow
def test_every_stored_array():
    case = load("iai_condinst_r50")
    results = iai.compare(case) | iai_losses.compare(case)
    assert set(results) == set(case.outputs())
    for name, ours in results.items():
        case.check(name, ours)

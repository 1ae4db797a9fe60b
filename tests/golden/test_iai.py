from tests.golden import iai
from tests.golden.cases import load


def test_every_stored_array():
    """Without losses and gradients, which take minutes to compile."""
    case = load("iai_condinst_r50")
    results = iai.compare(case)
    assert set(results) == set(case.outputs())
    assert len(results) == 191
    for name, ours in results.items():
        case.check(name, ours)

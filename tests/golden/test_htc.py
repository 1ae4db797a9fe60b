from tests.golden.cases import load
from tests.golden.htc import compare


def test_every_stored_array():
    """All stages, the flow of mask features, semantic branch and final objects."""
    case = load("htc_roi_heads")
    results = compare(case)
    assert len(case.outputs()) == 32
    for name in case.outputs():
        case.check(name, results[name])

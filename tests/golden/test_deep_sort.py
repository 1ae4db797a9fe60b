from tests.golden.cases import load
from tests.golden.deep_sort import compare


def test_every_stored_array():
    """The authors compute in float64; float32 keeps to the tolerance of the case."""
    case = load("deepsort")
    results = compare(case)
    assert len(case.outputs()) == 155
    for name in case.outputs():
        case.check(name, results[name])

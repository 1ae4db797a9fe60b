from tests.golden.cases import load
from tests.golden.videomt import compare


def test_every_stored_array():
    """Two frames of VidEoMT: query blocks, propagated queries, classes and masks."""
    case = load("videomt_vits")
    results = compare(case)
    assert len(case.outputs()) == 12
    for name in case.outputs():
        case.check(name, results[name])

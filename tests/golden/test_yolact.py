from tests.golden import yolact
from tests.golden.cases import load


def test_every_stored_array():
    case = load("yolact_r50")
    results = yolact.compare(case)
    assert len(case.outputs()) == 51
    for name in case.outputs():
        case.check(name, results[name])

from tests.golden.cases import load
from tests.golden.mask2former import compare


def test_every_stored_array_but_gradients():
    """Features, all decoder layers, final masks, matches, points and losses.

    The gradients take a second compilation; `tests/golden/check.py` compares them.
    """
    case = load("videomaskformer_r50")
    results = compare(case, gradients=False)
    names = [name for name in case.outputs() if not name.startswith("grad/")]
    assert len(names) > 100
    for name in names:
        case.check(name, results[name])

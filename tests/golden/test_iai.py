import pytest

from tests.golden import iai
from tests.golden.cases import load


@pytest.mark.slow
def test_every_stored_array_but_losses_and_gradients():
    """`tests.golden.check` compares these, which take minutes to compile."""
    case = load("iai_condinst_r50")
    results = iai.compare(case)
    names = [x for x in case.outputs() if not x.startswith(("loss/", "grad/"))]
    assert len(names) == 191
    for name in names:
        case.check(name, results[name])

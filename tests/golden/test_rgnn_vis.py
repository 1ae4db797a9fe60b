from tests.golden import rgnn_vis
from tests.golden.cases import load


def test_every_stored_array_but_losses():
    """`tests.golden.check` compares the losses, whose masks are sorted for minutes."""
    case = load("rgnnvis_r50")
    results = rgnn_vis.compare(case)
    names = [x for x in case.outputs() if not x.startswith(("loss/", "grad/"))]
    assert len(names) == 180
    for name in names:
        case.check(name, results[name])

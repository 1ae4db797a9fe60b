from tests.golden.cases import load
from tests.golden.track_head import compare


def test_every_stored_array():
    """Identities, scores and memory frame by frame; the loss and its gradients."""
    case = load("masktrack_track_head")
    results = compare(case)
    assert len(case.outputs()) > 50
    for name in case.outputs():
        case.check(name, results[name])

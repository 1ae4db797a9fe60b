import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.association.id_scores import (
    IdentityScoreSums,
    class_probs,
    count,
    empty_tally,
)

add = compiled(count)
probs_of = compiled(class_probs, static_argnames=("over", "least"))


def tally_of(frames, slots=3, classes=2):
    """After frames of (ids, shown, class scores, real)."""
    tally = IdentityScoreSums(*(np.asarray(x) for x in empty_tally(slots, classes)))
    for ids, shown, scores, real in frames:
        tally = add(
            tally, np.int32(ids), np.array(shown), np.float32(scores),
            real=np.bool_(real),
        )  # fmt: skip
    return tally


BOTH = ([1, 0], [True, True], [[0.8, 0.2], [0.4, 0.6]], True)
ONE = ([1, 0], [False, True], [[0.9, 0.9], [0.2, 0.4]], True)


@pytest.mark.parametrize(
    ("over", "hidden"), [("all_frames", [0.4, 0.1]), ("detected", [0.8, 0.2])]
)
def test_an_identity_missing_in_half_of_the_frames(over, hidden):
    found = probs_of(tally_of([BOTH, ONE]), over=over, least=0.05)
    np.testing.assert_allclose(found, [[0.3, 0.5], hidden, [0, 0]], rtol=1e-6)


def test_padding_is_no_frame():
    padding = ([1, 0], [True, True], [[0.9, 0.9], [0.9, 0.9]], False)
    tally = tally_of([BOTH, padding])
    assert tally.frames == 1
    for a, b in zip(tally, tally_of([BOTH]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_scores_have_to_be_above_the_least():
    tally = tally_of([BOTH])
    found = probs_of(tally, over="all_frames", least=float(np.float32(0.4)))
    np.testing.assert_allclose(found, [[0, 0.6], [0.8, 0], [0, 0]], rtol=1e-6)


def test_five_classes_of_an_identity_where_frames_without_it_do_not_count():
    scores = np.linspace(0.2, 0.8, 7)[None]
    tally = tally_of([([0], [True], scores, True)], slots=1, classes=7)
    found = probs_of(tally, over="detected", least=0.05)
    assert (found > 0).tolist() == [[False] * 2 + [True] * 5]
    assert (probs_of(tally, over="all_frames", least=0.05) > 0).all()

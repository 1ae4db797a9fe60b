import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.sampling import sample_balanced, sample_positives

POSITIVE = np.arange(20) < 6
NEGATIVE = np.arange(20) >= 9  # 6, 7 and 8 are ignored
KEYS = jax.random.split(jax.random.key(0), 300)


def draw(size, most_positive, positive=POSITIVE, negative=NEGATIVE):
    one = functools.partial(sample_balanced, size=size, most_positive=most_positive)
    return compiled(jax.vmap(one, (0, None, None)))(KEYS, positive, negative)


def test_positives_come_first_and_none_twice():
    chosen = draw(8, 4)
    np.testing.assert_array_equal(chosen.positive, [[True] * 4 + [False] * 4] * 300)
    assert chosen.valid.all()
    assert (chosen.chosen[:, :4] < 6).all()
    assert (chosen.chosen[:, 4:] >= 9).all()
    assert all(len(set(row)) == 8 for row in chosen.chosen.tolist())


def test_every_candidate_is_equally_likely():
    counts = np.bincount(draw(8, 3).chosen.ravel(), minlength=20)
    assert (counts[6:9] == 0).all()
    # 300 draws: 3 of 6 positives and 5 of 11 negatives, within 4 standard deviations.
    np.testing.assert_allclose(counts[:6], 150, atol=35)
    np.testing.assert_allclose(counts[9:], 136, atol=35)


def test_negatives_fill_up_and_padding_the_rest():
    few = draw(20, 20)
    np.testing.assert_array_equal(few.valid.sum(axis=1), 17)
    np.testing.assert_array_equal(few.positive.sum(axis=1), 6)
    assert not few.valid[:, 17:].any()
    none = draw(8, 4, positive=np.zeros(20, bool))
    assert none.valid.all()
    assert not none.positive.any()


def test_more_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="expected 1 .. 20 candidates, got 21"):
        draw(21, 4)


def test_a_random_subset_stands_for_all_positives():
    one = functools.partial(sample_positives, most=4)
    found = compiled(jax.vmap(one, (0, None)))(KEYS, POSITIVE)
    assert found.counted.all()
    assert all(len(set(row) & set(range(6))) == 4 for row in found.chosen.tolist())
    np.testing.assert_array_equal(found.share, np.float32(6 / 4))
    np.testing.assert_array_equal(found.left_out, 2)
    # 300 draws of 4 of 6, within 4 standard deviations.
    np.testing.assert_allclose(np.bincount(found.chosen.ravel()), 200, atol=33)


@pytest.mark.parametrize("most", [8, 30])
def test_of_few_positives_all_are_taken_once(most):
    one = functools.partial(sample_positives, most=most)
    found = compiled(one)(KEYS[0], POSITIVE)
    assert len(found.chosen) == min(most, 20)
    assert sorted(found.chosen[found.counted]) == list(range(6))
    assert (found.share, found.left_out) == (1, 0)
    none = compiled(one)(KEYS[0], np.zeros(20, bool))
    assert (none.counted.any(), none.share, none.left_out) == (False, 0, 0)

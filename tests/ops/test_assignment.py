import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tests.compiled import compiled
from vis_jax.ops.assignment import hungarian

_hungarian = compiled(hungarian)
_ALL = np.ones(5, bool)


def _optimum(cost):
    return cost[linear_sum_assignment(cost)].sum()


def _total(cost, rows, valid):
    rows = np.asarray(rows)
    assert len(set(rows)) == len(rows)
    return sum(cost[row, m] for m, row in enumerate(rows) if valid[m])


def test_takes_the_cheap_pairs():
    cost = np.full((9, 5), 1.0, np.float32)
    for m, row in enumerate([7, 2, 0, 8, 3]):
        cost[row, m] = 0.0
    np.testing.assert_array_equal(_hungarian(cost, _ALL), [7, 2, 0, 8, 3])


@pytest.mark.parametrize("kind", ["random", "tied", "equal", "negative"])
def test_reaches_the_optimum_of_scipy(kind):
    rng = np.random.default_rng(0)
    for _ in range(10):
        cost = rng.normal(size=(9, 5)).astype(np.float32)
        if kind == "tied":
            cost = np.round(cost)
        elif kind == "equal":
            cost = np.zeros_like(cost)
        elif kind == "negative":
            cost -= 100
        found = _total(cost, _hungarian(cost, _ALL), _ALL)
        np.testing.assert_allclose(found, _optimum(cost), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("real", [0, 1, 3])
def test_padded_columns_do_not_move_the_optimum(real):
    rng = np.random.default_rng(real)
    for _ in range(10):
        valid = np.zeros(5, bool)
        valid[rng.permutation(5)[:real]] = True
        cost = rng.normal(size=(9, 5)).astype(np.float32)
        for padding in (np.nan, 10 * rng.normal(size=(9, 5)).astype(np.float32)):
            junk = np.where(valid, cost, np.float32(padding))
            found = _total(cost, _hungarian(junk, valid), valid)
            np.testing.assert_allclose(found, _optimum(cost[:, valid]), rtol=1e-5)


def test_as_many_rows_as_columns():
    cost = np.random.default_rng(3).normal(size=(5, 5)).astype(np.float32)
    found = _total(cost, _hungarian(cost, _ALL), _ALL)
    np.testing.assert_allclose(found, _optimum(cost), rtol=1e-5)


def test_a_cost_that_is_not_finite_ends_and_is_avoided():
    cost = np.random.default_rng(4).random((9, 5)).astype(np.float32)
    bad = cost.copy()
    bad[3], bad[:, 2], bad[4, 4] = np.nan, np.inf, -np.inf
    rows = _hungarian(bad, _ALL)
    assert len(set(rows)) == 5
    assert 3 not in np.delete(rows, 2)


def test_fewer_rows_than_columns_are_an_error():
    with pytest.raises(ValueError, match="4 queries for 5 slots"):
        _hungarian(np.zeros((4, 5), np.float32), _ALL)

"""Rewritten operations compute the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.export.onnx_forms import plain

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def scanned(x, *, reverse=False):
    def step(carry, row):
        return carry + row, carry * row

    return jax.lax.scan(step, x[0], x, reverse=reverse)


def scanned_none(x):
    return jax.lax.scan(lambda carry, row: (carry + row, row), x[0], x[:0])


def looped(x):
    return jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y * 2 + 1, abs(x))


def looped_by_row(x):
    return jax.vmap(looped)(x)


def chosen(x):
    return jax.lax.cond(x.sum() > 0, jnp.sin, lambda y: jax.nn.relu(y) - 1, x)


def by_platform(x):
    def in_turn(x):
        return jax.lax.map(jnp.sin, jnp.concatenate([x, x]))[: len(x)]

    return jax.lax.platform_dependent(x, cpu=in_turn, default=jnp.sin)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (scanned, set()),
        (lambda x: scanned(x, reverse=True), set()),
        (lambda x: scanned(jnp.concatenate([x, x])), {"scan"}),
        (scanned_none, {"scan"}),
        (looped, {"while"}),
        (looped_by_row, {"while"}),
        (chosen, {"cond"}),
        (lambda x: chosen(-x), {"cond"}),
        (by_platform, set()),
    ],
)
def test_results_are_equal_and_short_loops_are_gone(function, names):
    closed = jax.make_jaxpr(jax.jit(function))(X)
    again = jax.make_jaxpr(plain(closed))(X)
    found = {eqn.primitive.name for eqn in again.jaxpr.eqns}
    assert found & {"scan", "while", "cond", "jit", "custom_jvp_call"} == names
    values = jax.jit(plain(closed))(X)
    expected = jax.tree.leaves(jax.jit(function)(X))
    for value, other in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-6)


@pytest.mark.parametrize(
    "row",
    [
        lambda x, i: x[i],  # taken whole: the last axis
        lambda x, i: x[:, i],
        lambda x, i: x[i, i],
        lambda x, i: jax.lax.dynamic_slice(x, (i, 0), (2, 4)),  # not a row: as it was
    ],
)
def test_a_row_of_each_array_of_a_batch_is_a_gather_without_whole_axes(row):
    batch = np.random.default_rng(1).normal(size=(2, 4, 4)).astype(np.float32)
    places = np.array([2, 9], np.int32)  # an index beyond the end is the last one
    closed = jax.make_jaxpr(jax.vmap(row))(batch, places)
    again = jax.make_jaxpr(plain(closed))(batch, places)
    for eqn in again.jaxpr.eqns:
        if eqn.primitive.name == "gather" and eqn.params["slice_sizes"] != (1, 2, 4):
            numbers = eqn.params["dimension_numbers"]
            assert {*numbers.start_index_map} <= {*numbers.collapsed_slice_dims}
    np.testing.assert_array_equal(
        plain(closed)(batch, places)[0], jax.vmap(row)(batch, places)
    )


def test_the_larger_of_two_arrays_is_a_choice():
    other = np.array([[np.nan, 0, 1, -1]] * 3, np.float32)
    given = np.where(np.arange(3)[:, None] == 1, np.float32(np.nan), X)

    def function(x):
        y = jnp.maximum(x, other), jnp.minimum(other, x), jax.nn.relu(x)
        whole = (x > 0).astype(jnp.int32)
        return *y, jnp.maximum(whole, 1 - whole), jnp.minimum(whole > 0, x < 1)

    closed = jax.make_jaxpr(function)(X)
    again = jax.make_jaxpr(plain(closed))(X)
    names = [eqn.primitive.name for eqn in again.jaxpr.eqns]
    assert (names.count("max"), names.count("min")) == (1, 1)  # of a number; of bool
    found = jax.jit(plain(closed))(given)
    for value, expected in zip(found, jax.jit(function)(given), strict=True):
        np.testing.assert_array_equal(value, expected)


INDEX = np.array([2, -5, 0, 2, 7], np.int32)
PAIRS = np.array([[0, 3], [2, 1], [0, 3], [9, 0]], np.int32)


def by_row(x, kind):
    return jax.vmap(lambda row, i: getattr(row.at[i], kind)(jnp.float32(2.5)))(
        x, np.stack([INDEX, INDEX + 1, INDEX])
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.at[:, INDEX[0]].set(x[:, 0] + 1),
        lambda x: x.at[:, INDEX[:3]].set(x[:, :3] + 1, mode="clip"),
        lambda x: x.at[:, INDEX].add(x[:, :1] * np.arange(5, dtype=np.float32)[None]),
        lambda x: x.T.at[:, np.array([0, 2, 0])].max(x.T[:, ::-1] * 3),
        lambda x: by_row(x, "add"),
        lambda x: by_row(x, "max"),
        lambda x: by_row(x, "set"),
        lambda x: jax.vmap(lambda y, v: y.at[PAIRS[:, 0], PAIRS[:, 1]].max(v))(
            jnp.stack([x, -x]), jnp.stack([x[0], x[1]])
        ),
        lambda x: jax.vmap(lambda i: jnp.bincount(i, length=4))(
            jnp.clip(abs(x), 0, 3).astype(jnp.int32)
        ),
    ],
)
def test_scatters_become_comparisons(function):
    closed = jax.make_jaxpr(function)(X)
    assert "scatter" in str(closed)
    again = jax.make_jaxpr(plain(closed))(X)
    assert "scatter" not in str(again)
    (found,) = jax.jit(plain(closed))(X)
    np.testing.assert_allclose(found, jax.jit(function)(X), rtol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.at[INDEX].set(1.0),
        lambda x: jax.lax.dynamic_update_slice(x, x[:2, :2], (1, 1)),
    ],
)
def test_other_updates_stay_what_they_are(function):
    closed = jax.make_jaxpr(function)(X)
    assert str(jax.make_jaxpr(plain(closed))(X)).count("scatter") == str(closed).count(
        "scatter"
    )

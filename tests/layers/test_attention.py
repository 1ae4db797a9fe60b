import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.layers import attention
from vis_jax.layers.attention import KeysValues, MultiHeadAttention, weighted_values

DIM, HEADS = 8, 2


@pytest.fixture(scope="module")
def case():
    """Module, parameters with biases, query [2, 3, C], key and value [2, 5, C]."""
    rng = np.random.default_rng(0)
    query, key, value = (
        rng.normal(size=(2, n, DIM)).astype(np.float32) for n in (3, 5, 5)
    )
    module = MultiHeadAttention(DIM, HEADS)
    variables = compiled(module.init)(jax.random.key(0), query, key, value)
    variables = jax.tree.map(
        lambda x: x + rng.normal(size=x.shape).astype(np.float32) / 4, variables
    )
    return module, variables, (query, key, value)


def _literal(variables, query, key, value, attend):
    """Softmax of scaled products, head by head, in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    q, k, v = (
        np.einsum("bnc,chd->bhnd", x, p[name]["kernel"]) + p[name]["bias"][:, None]
        for name, x in (("query", query), ("key", key), ("value", value))
    )
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(DIM // HEADS)
    weights = np.exp(logits) * attend[:, None]
    weights /= weights.sum(-1, keepdims=True)
    return (
        np.einsum("bhnd,hdc->bnc", weights @ v, p["out"]["kernel"]) + p["out"]["bias"]
    )


def test_is_the_formula_where_attend_is_true(case):
    module, variables, tokens = case
    attend = np.random.default_rng(1).random((2, 3, 5)) < 0.5
    attend[..., 0] |= ~attend.any(-1)
    found = compiled(module.apply)(variables, *tokens, attend)
    expected = _literal(variables, *tokens, attend)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_mask_means_everywhere(case):
    module, variables, tokens = case
    found = compiled(module.apply)(variables, *tokens)
    expected = _literal(variables, *tokens, np.ones((2, 3, 5)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("cached", [0, 2**22])  # heads in turn, and together
@pytest.mark.parametrize("rows", [1, 3])
def test_blocked_keys_change_nothing_and_no_mask_makes_a_nan(rows, cached, monkeypatch):
    monkeypatch.setattr(attention, "_CACHED", cached)
    rng = np.random.default_rng(3)
    q, k, v = (rng.normal(size=(2, n, 4, 3)).astype(np.float32) for n in (3, 5, 5))
    attend = np.ones((2, rows, 5), bool)
    attend[:, :, 2] = False
    attend[1, rows // 2] = False
    apply = compiled(
        lambda q, k, v, attend: weighted_values(q, KeysValues(k, v), attend)
    )
    before = apply(q, k, v, attend)
    k[:, 2], v[:, 2] = 1e3, 1e3
    after = apply(q, k, v, attend)
    some = np.broadcast_to(attend.any(-1), (2, 3))
    np.testing.assert_array_equal(before[some], after[some])
    assert np.isfinite(before).all()
    assert np.isfinite(after).all()


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_heads_in_turn_have_the_values_and_gradients_of_all_together(rows, monkeypatch):
    rng = np.random.default_rng(2)
    inputs = [rng.normal(size=(2, n, 4, 3)).astype(np.float32) for n in (3, 5, 5)]
    attend = None if rows is None else jnp.asarray(rng.random((2, rows, 5)) < 0.7)

    def run(inputs):
        def values(inputs):
            return weighted_values(inputs[0], KeysValues(*inputs[1:]), attend)

        out, pull = jax.vjp(values, inputs)
        return out, pull(jnp.cos(out))

    # Functions of their own: JAX would not trace the same one again.
    together = compiled(lambda inputs: run(inputs))(inputs)
    monkeypatch.setattr(attention, "_CACHED", 2 * 4 * 3 * 5 - 1)
    traced = jax.jit(lambda inputs: run(inputs)).trace(inputs)
    texts = [traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda")]
    assert ["while" in text for text in texts] == [True, False]
    in_turn = jax.device_get(traced.lower().compile()(inputs))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), in_turn, together
    )


def test_starts_as_pytorch_does():
    module = MultiHeadAttention(64, 4)
    tokens = np.zeros((1, 2, 64))
    params = compiled(module.init)(jax.random.key(0), tokens, tokens, tokens)["params"]
    # Query, key and value are drawn as one matrix of 64 x 192, the output on its own.
    bounds = dict.fromkeys(("query", "key", "value"), (6 / (4 * 64)) ** 0.5)
    for name, bound in (bounds | {"out": (6 / (2 * 64)) ** 0.5}).items():
        largest = np.abs(params[name]["kernel"]).max()
        assert 0.98 * bound < largest <= bound
        assert not np.any(params[name]["bias"])


def test_computes_in_bfloat16():
    module = MultiHeadAttention(DIM, HEADS, jnp.bfloat16)
    tokens = jnp.ones((1, 2, DIM), jnp.bfloat16)
    out, variables = jax.eval_shape(
        module.init_with_output, jax.random.key(0), tokens, tokens, tokens
    )
    assert out.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("cached", [0, 2**22])  # heads in turn, and together
def test_the_softmax_has_logits_that_are_not_rounded(cached, monkeypatch):
    """257 and 256 are one number in bfloat16, but not as logits of two keys."""
    monkeypatch.setattr(attention, "_CACHED", cached)
    query = jnp.asarray([[[16, 1]]], jnp.bfloat16)
    keys = jnp.asarray([[[16, 1]], [[16, 0]], [[99, 9]]], jnp.bfloat16)
    values = jnp.asarray([[[1, 0]], [[0, 1]], [[9, 9]]], jnp.bfloat16)
    only = jnp.asarray([[True, True, False]])
    attend = compiled(lambda q, k, v: weighted_values(q, KeysValues(k, v), only))
    found = np.float32(attend(query, keys, values))[0, 0]
    np.testing.assert_allclose(found, [0.731, 0.269], atol=0.005)

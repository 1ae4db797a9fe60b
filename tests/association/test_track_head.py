import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.association.track_head import TrackHead
from vis_jax.ops.match_logits import match_logits

EMBEDS = jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 0.0]])
MEMORY = jnp.array([[3.0, 1.0], [0.0, -1.0]])


def test_column_zero_is_zero_and_others_are_dot_products():
    logits = match_logits(EMBEDS, MEMORY, jnp.array([True, True]))
    np.testing.assert_array_equal(logits, [[0, 3, 0], [0, 7, -1], [0, 0, 0]])


def test_softmax_is_equation_two():
    probs = jax.nn.softmax(match_logits(EMBEDS, MEMORY, jnp.array([True, True])))
    e = np.exp
    total = 1 + e(7) + e(-1)
    np.testing.assert_allclose(probs[1], np.array([1, e(7), e(-1)]) / total, rtol=1e-5)


def test_padding_of_the_memory_has_no_probability_and_no_gradient():
    valid = jnp.array([True, False])

    def new(memory):
        return jax.nn.log_softmax(match_logits(EMBEDS, memory, valid))[:, 0].sum()

    value, gradient = jax.value_and_grad(new)(MEMORY)
    np.testing.assert_allclose(value, new(MEMORY.at[1].set(1e3)))
    assert np.isfinite(gradient).all()
    assert gradient[0].any()
    assert not gradient[1].any()
    everything = match_logits(EMBEDS, MEMORY, jnp.array([False, False]))
    probs = jax.nn.softmax(everything)
    np.testing.assert_array_equal(probs, [[1, 0, 0]] * 3)


def test_head_is_two_layers_with_one_relu():
    head = TrackHead(width=2)
    pooled = jnp.arange(4.0).reshape(1, 1, 2, 2) - 1  # one region, S = 1 and C = 2
    pooled = pooled.reshape(2, 1, 1, 2)
    variables = {
        "params": {
            "fc1": {"kernel": jnp.eye(2).reshape(1, 1, 2, 2), "bias": jnp.zeros(2)},
            "fc2": {"kernel": -jnp.eye(2), "bias": jnp.array([0.0, 1.0])},
        }
    }
    # (-1, 0) and (1, 2): cut at 0, negated, one added to the second; not cut again.
    np.testing.assert_array_equal(head.apply(variables, pooled), [[0, 1], [-1, -1]])


def test_head_takes_any_leading_axes_and_returns_float32():
    head = TrackHead(width=8, dtype=jnp.bfloat16)
    pooled = jax.ShapeDtypeStruct((2, 5, 7, 7, 4), jnp.bfloat16)
    out, variables = jax.eval_shape(head.init_with_output, jax.random.key(0), pooled)
    assert (out.shape, out.dtype) == ((2, 5, 8), jnp.float32)
    params = variables["params"]
    assert params["fc1"]["kernel"].shape == (7, 7, 4, 8)
    assert params["fc2"]["kernel"].shape == (8, 8)


def test_weights_start_small():
    params = TrackHead(width=64).init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))
    for layer in params["params"].values():
        assert not layer["bias"].any()
        np.testing.assert_allclose(layer["kernel"].std(), 0.01, rtol=0.1)

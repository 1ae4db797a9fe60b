import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from tests.compiled import compiled
from vis_jax.association.track_head import TrackHead
from vis_jax.ops.assignment import match_logits

_logits = compiled(match_logits)
EMBEDS = np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 0.0]])
MEMORY = np.array([[3.0, 1.0], [0.0, -1.0]])


def test_column_zero_is_zero_and_others_are_dot_products():
    logits = _logits(EMBEDS, MEMORY, np.array([True, True]))
    np.testing.assert_array_equal(logits, [[0, 3, 0], [0, 7, -1], [0, 0, 0]])


def test_softmax_is_equation_two():
    probs = softmax(_logits(EMBEDS, MEMORY, np.array([True, True])), axis=-1)
    e = np.exp
    total = 1 + e(7) + e(-1)
    np.testing.assert_allclose(probs[1], np.array([1, e(7), e(-1)]) / total, rtol=1e-5)


def test_padding_of_the_memory_has_no_probability_and_no_gradient():
    valid = np.array([True, False])

    def new(memory, embeds):
        logits = match_logits(embeds, memory, jnp.asarray(valid))
        return jax.nn.log_softmax(logits)[:, 0].sum()

    both = compiled(jax.value_and_grad(new))
    value, gradient = both(MEMORY, EMBEDS)
    other = np.stack([MEMORY[0], [1e3, 1e3]])
    np.testing.assert_allclose(value, both(other, EMBEDS)[0])
    assert np.isfinite(gradient).all()
    assert gradient[0].any()
    assert not gradient[1].any()
    everything = _logits(EMBEDS, MEMORY, np.array([False, False]))
    probs = softmax(everything, axis=-1)
    np.testing.assert_array_equal(probs, [[1, 0, 0]] * 3)


def test_head_is_two_layers_with_one_relu():
    head = TrackHead(width=2)
    pooled = np.arange(4.0).reshape(1, 1, 2, 2) - 1  # one region, S = 1 and C = 2
    pooled = pooled.reshape(2, 1, 1, 2)
    variables = {
        "params": {
            "fc1": {"kernel": np.eye(2).reshape(1, 1, 2, 2), "bias": np.zeros(2)},
            "fc2": {"kernel": -np.eye(2), "bias": np.array([0.0, 1.0])},
        }
    }
    # (-1, 0) and (1, 2): cut at 0, negated, one added to the second; not cut again.
    np.testing.assert_array_equal(
        compiled(head.apply)(variables, pooled), [[0, 1], [-1, -1]]
    )


def test_head_takes_any_leading_axes_and_returns_float32():
    head = TrackHead(width=8, dtype=jnp.bfloat16)
    pooled = jax.ShapeDtypeStruct((2, 5, 7, 7, 4), jnp.bfloat16)
    out, variables = jax.eval_shape(head.init_with_output, jax.random.key(0), pooled)
    assert (out.shape, out.dtype) == ((2, 5, 8), jnp.float32)
    params = variables["params"]
    assert params["fc1"]["kernel"].shape == (7, 7, 4, 8)
    assert params["fc2"]["kernel"].shape == (8, 8)


def test_weights_start_small():
    init = compiled(TrackHead(width=64).init)
    params = init(jax.random.key(0), np.zeros((1, 2, 2, 8)))
    for layer in params["params"].values():
        assert not layer["bias"].any()
        np.testing.assert_allclose(layer["kernel"].std(), 0.01, rtol=0.1)

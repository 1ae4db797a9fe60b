import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.golden.cases import load
from vis_jax.ops.deform_attn import deform_attn, read_level

attend = compiled(deform_attn, static_argnames="shapes")


def brute_force(values, locations, weights, shapes):
    """The sum of its definition, reading by reading, in float64."""
    values = np.asarray(values, np.float64)
    out = np.zeros((*locations.shape[:2], values.shape[2]))
    for q, head, level, point in np.ndindex(weights.shape):
        height, width = shapes[level]
        start = sum(h * w for h, w in shapes[:level])
        x, y = np.float64(locations[q, head, level, point]) * (width, height) - 0.5
        for yi, xi in np.ndindex(height, width):
            weight = max(1 - abs(x - xi), 0) * max(1 - abs(y - yi), 0)
            weight *= weights[q, head, level, point]
            out[q, head] += weight * values[start + yi * width + xi, head]
    return out


def draw(shapes, *, queries=3, heads=2, points=2, channels=2, spread=0.5):
    rng = np.random.default_rng(0)
    tokens = sum(h * w for h, w in shapes)
    values = rng.normal(size=(tokens, heads, channels)).astype(np.float32)
    locations = rng.uniform(
        -spread, 1 + spread, (queries, heads, len(shapes), points, 2)
    )
    weights = rng.random((queries, heads, len(shapes), points)).astype(np.float32)
    return values, locations.astype(np.float32), weights


def test_reads_pixel_centres_exactly_and_zero_outside():
    values = np.arange(6.0).reshape(6, 1, 1)  # 0 1 2 / 3 4 5
    points = np.array([[0.5, 0.75], [1.0, 0.25], [1.5, 0.5], [0.5, 0.5]])
    read = attend(
        values, points.reshape(4, 1, 1, 1, 2), np.ones((4, 1, 1, 1)), shapes=((2, 3),)
    )
    # Centre of pixel 4; half way out of pixel 2; outside; between pixels 1 and 4.
    np.testing.assert_allclose(read.ravel(), [4, 1, 0, 2.5], atol=1e-6)


@pytest.mark.parametrize("shapes", [((4, 5), (1, 1), (2, 3)), ((1, 6),)])
def test_matches_the_definition(shapes):
    inputs = draw(shapes)
    ours = attend(*inputs, shapes=shapes)
    np.testing.assert_allclose(ours, brute_force(*inputs, shapes), atol=1e-5)


def test_gradients_match_finite_differences():
    shapes = ((3, 4),)
    inputs = draw(shapes, queries=2)

    def energy(*args):
        return jnp.sum(deform_attn(*args, shapes=shapes) ** 2)

    gradients = compiled(jax.grad(energy, (0, 1, 2)))(*inputs)
    rng = np.random.default_rng(1)
    for which, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape)
        ends = []
        for step in (1e-5, -1e-5):
            moved = [np.asarray(x, np.float64) for x in inputs]
            moved[which] = moved[which] + step * direction
            ends.append(np.sum(brute_force(*moved, shapes) ** 2))
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=2e-3)


def test_slope_at_a_pixel_centre_is_that_to_the_next_pixel():
    values = np.array([[1.0, 5.0, 2.0]]).reshape(1, 3, 1, 1)
    centre = np.array([0.5, 0.5]).reshape(1, 1, 1, 2)

    def read(values, x):
        return read_level(values, x, jnp.ones((1, 1, 1))).sum()

    slope = compiled(jax.grad(read, 1))(values, centre)
    np.testing.assert_allclose(slope.ravel(), [3 * (2 - 5), -5], rtol=1e-6)


@pytest.mark.parametrize("instance", [0, 1, 2])
def test_matches_stored_outputs_and_gradients(instance):
    case, name = load("ops"), f"ms_deform_attn/{instance}"
    shapes = case.manifest["settings"]["ms_deform_attn"][instance]["shapes"]
    shapes = tuple(tuple(shape) for shape in shapes)
    inputs = ("value", "sampling_locations", "attention_weights")
    arrays = [case.arrays[f"{name}/{x}"] for x in inputs]

    def run(*args):
        out = jax.vmap(lambda *one: deform_attn(*one, shapes=shapes))(*args)
        return jnp.sum(out**2), out

    both = compiled(jax.value_and_grad(run, (0, 1, 2), has_aux=True))
    (_, out), gradients = both(*arrays)
    case.check(f"{name}/output", out.reshape(*out.shape[:2], -1))
    for x, gradient in zip(inputs, gradients, strict=True):
        case.check(f"{name}/grad_sum_sq/{x}", gradient)


def test_shapes_that_do_not_fit_are_an_error():
    inputs = draw(((4, 5),))
    with pytest.raises(ValueError, match="1 levels with 20 tokens"):
        attend(*inputs, shapes=((4, 4),))

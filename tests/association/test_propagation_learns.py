import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.compiled import RUNS_LONG, compiled
from vis_jax.association.propagation import MaskPropagation, Settings
from vis_jax.losses.soft_iou import soft_iou_loss

SIZE, CHANNELS = (8, 12), 8


def _pair():
    """Two squares of 3 x 3 cells that change places, in noise.

    Returns masks [2 2 h w], of both squares in both frames, and features.
    """
    masks = np.zeros((2, 2, *SIZE), np.float32)
    masks[0, 0, 1:4, 1:4] = masks[1, 0, 4:7, 7:10] = 1
    masks[0, 1, 4:7, 6:9] = masks[1, 1, 1:4, 2:5] = 1
    rng = np.random.default_rng(0)
    look = 3 * rng.normal(size=(2, CHANNELS))
    features = np.einsum("nthw,nc->thwc", masks, look)
    features += 0.1 * rng.normal(size=features.shape)
    return masks, features.astype(np.float32)


def test_two_squares_that_change_places_are_learned():
    """Property 12: L_prop below 0.1, and either square has its own mask."""
    masks, features = map(jnp.asarray, _pair())
    model = MaskPropagation(Settings(dim=16, dilations=(2, 4)), CHANNELS)
    valid = jnp.ones(2, bool)
    optimizer = optax.adam(3e-2)

    def clip(params):
        """Masks over both frames."""

        def to_frame(frame):
            given = (features[0], frame, masks[:, 0], valid)
            return model.apply({"params": params}, *given)

        return jax.vmap(to_frame, out_axes=1)(features)

    def loss(params):
        return soft_iou_loss(
            clip(params),
            masks,
            jnp.ones((2, 2), bool),
            epsilon=1.0,
            normalisation="mean",
        )

    def update(state, _):
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params)
        change, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, change), moments), value

    def train(key):
        params = model.init(key, features[0], features[1], masks[:, 0], valid)
        params = params["params"]
        state, values = jax.lax.scan(
            update, (params, optimizer.init(params)), length=180
        )
        return values, clip(state[0])

    with jax.numpy_dtype_promotion("standard"):
        run = compiled(train, compiler_options=RUNS_LONG)
        values, found = run(jax.random.key(0))
    assert values[0] > 0.8
    assert values[-1] < 0.1
    np.testing.assert_array_equal(found > 0.5, masks > 0.5)

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.trackers import kalman

predict, update = jax.jit(kalman.predict), jax.jit(kalman.update)


@jax.jit
def distances(state, boxes):
    return kalman.gating_distance(kalman.project(state), boxes)


def dense(mean, covariance, box):
    """Prediction, gating distance and update in float64, as in the textbook."""

    def noise(position, velocity, aspect, aspect_velocity):
        height = mean[3]
        first = [position * height, position * height, aspect, position * height]
        second = [velocity * height] * 2 + [aspect_velocity, velocity * height]
        return np.diag(np.square(first + second))

    move, measure = np.eye(8), np.eye(8)[:4]
    move[range(4), range(4, 8)] = 1
    covariance = move @ covariance @ move.T + noise(1 / 20, 1 / 160, 1e-2, 1e-5)
    mean = move @ mean
    expected = measure @ covariance @ measure.T
    expected += noise(1 / 20, 0, 1e-1, 0)[:4, :4]
    inverse = np.linalg.inv(expected)
    off = box - measure @ mean
    gain = covariance @ measure.T @ inverse
    distance = off @ inverse @ off
    return mean + gain @ off, covariance - gain @ expected @ gain.T, distance


def test_boxes_there_and_back():
    boxes = jnp.asarray([[10.0, 20.0, 40.0, 80.0], [0.0, 0.0, 3.0, 1.0]])
    uvah = kalman.to_uvah(boxes)
    np.testing.assert_allclose(uvah[0], [25, 50, 0.5, 60])
    np.testing.assert_allclose(kalman.from_uvah(uvah), boxes, atol=1e-5)
    # A filter may run into the negative where it sees nothing.
    lost = kalman.from_uvah(jnp.asarray([[5.0, 5.0, 0.5, -2.0], [5.0, 5.0, -0.1, 4.0]]))
    sides = lost[:, 2:] - lost[:, :2]
    assert (sides >= 0).all()
    np.testing.assert_array_equal(sides.prod(axis=1), 0)


def test_equals_the_textbook():
    rng = np.random.default_rng(0)
    boxes = rng.uniform([90, 40, 0.4, 50], [110, 60, 0.6, 70], (6, 4))
    boxes = boxes.astype(np.float32)
    state = kalman.initiate(jnp.asarray(boxes[0]))
    mean, covariance = (np.asarray(x, np.float64) for x in state)
    for box in boxes[1:]:
        state = predict(state)
        distance = distances(state, jnp.asarray(box[None]))[0]
        state = update(state, jnp.asarray(box))
        mean, covariance, expected = dense(mean, covariance, box.astype(np.float64))
        np.testing.assert_allclose(distance, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.mean, mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.covariance, covariance, rtol=1e-5, atol=1e-5)


def test_what_stands_still_has_no_velocity():
    box = jnp.asarray([50.0, 60.0, 0.5, 80.0])
    state = kalman.initiate(box)
    for _ in range(10):
        state = predict(state)
        assert distances(state, box[None])[0] < kalman.GATE
        state = update(state, box)
    np.testing.assert_allclose(state.mean[4:], 0, atol=1e-5)
    np.testing.assert_allclose(state.mean[:4], box, rtol=1e-6)


def test_what_moves_is_expected_where_it_moves():
    boxes = jnp.tile(jnp.asarray([[50.0, 60.0, 0.5, 80.0]]), (12, 1))
    boxes = boxes.at[:, 0].add(6 * jnp.arange(12.0))
    state = kalman.initiate(boxes[0])
    for box in boxes[1:]:
        state = update(predict(state), box)
    np.testing.assert_allclose(state.mean[4], 6, atol=0.5)
    far, near = distances(predict(state), jnp.stack([boxes[4], boxes[-1]]))
    assert near < kalman.GATE < far


def test_flat_boxes_and_free_slots_stay_finite():
    flat = kalman.to_uvah(jnp.asarray([[5.0, 5.0, 9.0, 5.0], [0.0, 0.0, 0.0, 0.0]]))
    born = jax.vmap(kalman.initiate)(flat)
    free = kalman.free_states(2)
    states = jax.tree.map(lambda *x: jnp.concatenate(x), born, free)
    boxes = jnp.concatenate([flat, flat])
    for _ in range(3):
        states = jax.vmap(predict)(states)
        assert jnp.isfinite(jax.vmap(distances, (0, None))(states, boxes)).all()
        states = jax.vmap(update)(states, boxes)
    assert all(jnp.isfinite(x).all() for x in states)

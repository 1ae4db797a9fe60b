import jax
import numpy as np

from tests.compiled import compiled
from vis_jax.trackers import kalman


def _distances(state, boxes):
    return kalman.gating_distance(kalman.project(state), boxes)


initiate, predict = compiled(kalman.initiate), compiled(kalman.predict)
update, distances = compiled(kalman.update), compiled(_distances)
to_uvah, from_uvah = compiled(kalman.to_uvah), compiled(kalman.from_uvah)


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
    boxes = np.array([[10.0, 20.0, 40.0, 80.0], [0.0, 0.0, 3.0, 1.0]])
    uvah = to_uvah(boxes)
    np.testing.assert_allclose(uvah[0], [25, 50, 0.5, 60])
    np.testing.assert_allclose(from_uvah(uvah), boxes, atol=1e-5)
    # A filter may run into the negative where it sees nothing.
    lost = from_uvah(np.array([[5.0, 5.0, 0.5, -2.0], [5.0, 5.0, -0.1, 4.0]]))
    sides = lost[:, 2:] - lost[:, :2]
    assert (sides >= 0).all()
    np.testing.assert_array_equal(sides.prod(axis=1), 0)


def test_equals_the_textbook():
    rng = np.random.default_rng(0)
    boxes = rng.uniform([90, 40, 0.4, 50], [110, 60, 0.6, 70], (6, 4))
    boxes = boxes.astype(np.float32)
    state = initiate(boxes[0])
    mean, covariance = (np.asarray(x, np.float64) for x in state)
    for box in boxes[1:]:
        state = predict(state)
        distance = distances(state, box[None])[0]
        state = update(state, box)
        mean, covariance, expected = dense(mean, covariance, box.astype(np.float64))
        np.testing.assert_allclose(distance, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.mean, mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.covariance, covariance, rtol=1e-5, atol=1e-5)


def test_what_stands_still_has_no_velocity():
    box = np.array([50.0, 60.0, 0.5, 80.0])
    state = initiate(box)
    for _ in range(10):
        state = predict(state)
        assert distances(state, box[None])[0] < kalman.GATE
        state = update(state, box)
    np.testing.assert_allclose(state.mean[4:], 0, atol=1e-5)
    np.testing.assert_allclose(state.mean[:4], box, rtol=1e-6)


def test_what_moves_is_expected_where_it_moves():
    boxes = np.tile([50.0, 60.0, 0.5, 80.0], (12, 1))
    boxes[:, 0] += 6 * np.arange(12.0)
    state = initiate(boxes[0])
    for box in boxes[1:]:
        state = update(predict(state), box)
    np.testing.assert_allclose(state.mean[4], 6, atol=0.5)
    far, near = distances(predict(state), np.stack([boxes[4], boxes[-1]]))
    assert near < kalman.GATE < far


def test_flat_boxes_and_free_slots_stay_finite():
    flat = to_uvah(np.array([[5.0, 5.0, 9.0, 5.0], [0.0, 0.0, 0.0, 0.0]]))
    born = compiled(jax.vmap(kalman.initiate))(flat)
    free = kalman.free_states(2)
    states = jax.tree.map(lambda *x: np.concatenate(x), born, free)
    boxes = np.concatenate([flat, flat])
    all_predict, all_update = (
        compiled(jax.vmap(f)) for f in (kalman.predict, kalman.update)
    )
    all_distances = compiled(jax.vmap(_distances, (0, None)))
    for _ in range(3):
        states = all_predict(states)
        assert np.isfinite(all_distances(states, boxes)).all()
        states = all_update(states, boxes)
    assert all(np.isfinite(x).all() for x in states)

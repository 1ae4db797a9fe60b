"""The Kalman filter of DeepSORT, for one track; callers vmap.

Wojke, Bewley and Paulus, "Simple Online and Realtime Tracking with a Deep Association
Metric" (DeepSORT), ICIP 2017, section 2.1, with the noise of the authors' code. The
state is (u, v, a, h) and its change per frame: centre u, v and height h in pixels, and
aspect ratio a = width / height. Measurements are boxes in the same form.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.typing import Array, Float32

# Gate for boxes of a track: the 0.95 quantile of the chi-square distribution with four
# degrees of freedom.
GATE = 9.4877

_POSITION = 1 / 20  # standard deviations are relative to the height ..
_VELOCITY = 1 / 160
_ASPECT = 1e-2  # .. except for the aspect, which has no unit
_ASPECT_VELOCITY = 1e-5
_ASPECT_MEASURED = 1e-1
_LEAST_HEIGHT = 1.0  # pixels; flatter boxes would have no uncertainty and no aspect


class Gaussian(NamedTuple):
    """A state (Z = 8) or a box in the form u, v, a, h (Z = 4)."""

    mean: Float32[Array, "*lead Z"]
    covariance: Float32[Array, "*lead Z Z"]


def to_uvah(boxes: Float32[Array, "*lead 4"]) -> Float32[Array, "*lead 4"]:
    """Returns centre, width / height and height of boxes in pixels.

    Boxes less than a pixel high count as one pixel high.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    width, height = jnp.split(high - low, 2, axis=-1)
    height = jnp.maximum(height, _LEAST_HEIGHT)
    return jnp.concatenate([(low + high) / 2, width / height, height], axis=-1)


def from_uvah(boxes_uvah: Float32[Array, "*lead 4"]) -> Float32[Array, "*lead 4"]:
    """Returns boxes in pixels; empty where aspect or height is negative."""
    centre, aspect, height = jnp.split(boxes_uvah, [2, 3], axis=-1)
    height = jnp.maximum(height, 0.0)
    half = jnp.concatenate([jnp.maximum(aspect, 0.0) * height, height], axis=-1) / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def free_states(slots: int) -> Gaussian:
    """Returns states for empty slots that keep every function finite."""
    mean = jnp.asarray([0, 0, 1, 1, 0, 0, 0, 0], jnp.float32)
    return Gaussian(
        mean=jnp.tile(mean[None], (slots, 1)),
        covariance=jnp.tile(jnp.eye(8)[None], (slots, 1, 1)),
    )


def initiate(box_uvah: Float32[Array, "4"]) -> Gaussian:
    """Returns the state after the first box: at rest, with large uncertainty."""
    height = box_uvah[3]
    position = _deviations(2 * _POSITION * height, _ASPECT)
    velocity = _deviations(10 * _VELOCITY * height, _ASPECT_VELOCITY)
    deviations = jnp.concatenate([position, velocity])
    mean = jnp.concatenate([box_uvah, jnp.zeros_like(box_uvah)])
    return Gaussian(mean, jnp.diag(deviations**2))


def predict(state: Gaussian) -> Gaussian:
    """Predicts the state one frame later, under constant velocity."""
    height = state.mean[3]  # before the prediction
    position = _deviations(_POSITION * height, _ASPECT)
    velocity = _deviations(_VELOCITY * height, _ASPECT_VELOCITY)
    noise = jnp.diag(jnp.concatenate([position, velocity]) ** 2)
    move = jnp.eye(8) + jnp.eye(8, k=4)
    covariance = _product(_product(move, state.covariance), move.T) + noise
    return Gaussian(_product(move, state.mean), covariance)


def project(state: Gaussian) -> Gaussian:
    """Projects the state to the expected box: Z = 4."""
    noise = _deviations(_POSITION * state.mean[3], _ASPECT_MEASURED) ** 2
    covariance = state.covariance[:4, :4] + jnp.diag(noise)
    return Gaussian(state.mean[:4], covariance)


def update(state: Gaussian, box_uvah: Float32[Array, "4"]) -> Gaussian:
    """Updates the state with a measured box.

    With S = L L' the measurement covariance, H P the first four rows of the state's
    covariance, and K the gain: K S K' = (L^-1 H P)' (L^-1 H P), which is symmetric, and
    K (z - Hx) = (L^-1 H P)' L^-1 (z - Hx).
    """
    expected = project(state)
    factor = jnp.linalg.cholesky(expected.covariance)
    right = jnp.concatenate(
        [state.covariance[:4], (box_uvah - expected.mean)[:, None]], axis=1
    )
    solved = jax.lax.linalg.triangular_solve(factor, right, left_side=True, lower=True)
    gain, innovation = solved[:, :8], solved[:, 8]
    return Gaussian(
        mean=state.mean + _product(gain.T, innovation),
        covariance=state.covariance - _product(gain.T, gain),
    )


def gating_distance(
    expected: Gaussian, boxes_uvah: Float32[Array, "D Z"]
) -> Float32[Array, "D"]:
    """Returns squared Mahalanobis distances to the expected box; see `GATE`.

    Args:
      expected: from `project`; only its first two entries to gate the position alone.
      boxes_uvah: D boxes, or the same part of each.
    """
    factor = jnp.linalg.cholesky(expected.covariance)
    off = (boxes_uvah - expected.mean[None]).T
    solved = jax.lax.linalg.triangular_solve(factor, off, left_side=True, lower=True)
    return jnp.sum(solved**2, axis=0)


def _deviations(height: Float32[Array, ""], aspect: float) -> Float32[Array, "4"]:
    """Returns standard deviations: the same for u, v and h, separate for the aspect."""
    return jnp.stack([height, height, jnp.full_like(height, aspect), height])


def _product(
    a: Float32[Array, "A B"], b: Float32[Array, "B *C"]
) -> Float32[Array, "A *C"]:
    # Accelerators round matrix products by default.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)

"""Diagonal Gaussians of track appearances: likelihoods and updates.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 3.4. Letters: M tracks, N detections, A appearance channels.
"""

import math
from typing import Literal

import jax.numpy as jnp

from vis_jax.typing import Array, Float32

VarianceRule = Literal["released", "paper", "normal_inverse_chi2"]

_LEAST_VARIANCE = 1e-6
_EPSILON = 1e-8  # avoids 0 / 0 when both rates are 0


def log_likelihood(
    x: Float32[Array, "N A"], mean: Float32[Array, "M A"], var: Float32[Array, "M A"]
) -> Float32[Array, "M N"]:
    """Returns the log density of every x under every Gaussian.

    Uses squares of differences: the expanded form of the released code loses a tenth of
    a matching pair's value to cancellation.

    Args:
      x: appearance vectors.
      mean, var: per channel; variances below 1e-6 count as 1e-6.
    """
    var = jnp.maximum(var, _LEAST_VARIANCE)
    apart = jnp.square(x[None] - mean[:, None]) / var[:, None]
    norm = x.shape[-1] * math.log(2 * math.pi) + jnp.log(var).sum(axis=-1)
    return -0.5 * (norm[:, None] + apart.sum(axis=-1))


def update(
    x: Float32[Array, "M A"],
    mean: Float32[Array, "M A"],
    var: Float32[Array, "M A"],
    *,
    mean_rate: Float32[Array, "M"],
    var_rate: Float32[Array, "M"],
    spread: Float32[Array, "M"],
    rule: VarianceRule,
) -> tuple[Float32[Array, "M A"], Float32[Array, "M A"]]:
    """Returns means and variances after one more observation each, Eq. 4.

    Args:
      x: the new appearance vectors.
      mean, var: before the update.
      mean_rate, var_rate: kappa and nu of the source, in [0, 1]; 0 keeps the old value.
      spread: variance of a single observation.
      rule: weight of the squared difference in the variance. released: kappa nu /
        (kappa + nu); paper, as Eq. 4b is printed: kappa (1 - nu) / (kappa + nu), which
        tends to 1 as nu tends to 0; normal_inverse_chi2: nu (1 - kappa), the posterior
        of the conjugate prior.
    """
    total = mean_rate + var_rate + _EPSILON
    weight = {
        "released": mean_rate * var_rate / total,
        "paper": mean_rate * (1.0 - var_rate) / total,
        "normal_inverse_chi2": var_rate * (1.0 - mean_rate),
    }[rule]
    kappa, nu, spread, weight = (
        rate[:, None] for rate in (mean_rate, var_rate, spread, weight)
    )
    moved = kappa * x + (1.0 - kappa) * mean
    apart = jnp.square(x - mean)
    return moved, nu * spread + (1.0 - nu) * var + weight * apart

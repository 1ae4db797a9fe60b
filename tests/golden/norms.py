"""Adds batch statistics to frozen norms, as the stored training runs have them."""

import flax.linen as nn
import jax

from vis_jax.layers.norm import FrozenBatchNorm

_EPSILON = 1e-5


class BatchStatistics:
    """Method interceptor that makes frozen norms use the statistics of the batch.

    Attributes:
      moments: mean and variance of the input of every norm, by module path.
    """

    def __init__(self):
        self.moments: dict[tuple[str, ...], tuple[jax.Array, jax.Array]] = {}

    def __call__(self, call, args, kwargs, context: nn.module.InterceptorContext):
        """Returns the output of the method."""
        norm = context.module
        if not isinstance(norm, FrozenBatchNorm):
            return call(*args, **kwargs)
        (x,) = args
        scale = norm.get_variable("constants", "scale")
        bias = norm.get_variable("constants", "bias")
        mean = x.mean(axis=(0, 1, 2), keepdims=True)
        # In two passes: E[x^2] - E[x]^2 loses digits where the mean is large.
        var = ((x - mean) ** 2).mean(axis=(0, 1, 2), keepdims=True)
        self.moments[norm.path] = (mean.ravel(), var.ravel())
        x = (x - mean) * jax.lax.rsqrt(var + _EPSILON)
        return x * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)

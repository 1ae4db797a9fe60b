"""Feature pyramid: maps of one width at strides 4, 8, 16, 32 and 64.

Lin et al., "Feature pyramid networks for object detection", CVPR 2017.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.conv import Conv
from vis_jax.settings import Count, section
from vis_jax.typing import Array, DTypeLike, Float

# detectron2's c2_xavier_fill, PyTorch's kaiming_uniform_(a=1): +-sqrt(3 / fan_in).
_FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


@section
class Settings:
    """`model.fpn`."""

    dim: Count = 256  # channels of every level


class FPN(nn.Module):
    """Backbone features 'res2' .. 'res5' to 'p2' .. 'p6'.

    Attributes:
      dim: channels of every level.
    """

    dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: dict[str, Float[Array, "N _ _ _"]]
    ) -> dict[str, Float[Array, "N _ _ D"]]:
        """Levels by name; 'p6' is every second cell of 'p5', a 1 x 1 max-pool."""
        conv = functools.partial(
            Conv, self.dim, use_bias=True, kernel_init=_FAN_IN, dtype=self.dtype
        )
        levels: dict[str, jax.Array] = {}
        top = None
        for stage in (5, 4, 3, 2):
            x = conv(1, name=f"lateral{stage}")(features[f"res{stage}"])
            top = x if top is None else x + _double(top)
            levels[f"p{stage}"] = conv(3, name=f"output{stage}")(top)
        levels["p6"] = levels["p5"][:, ::2, ::2]
        return {name: levels[name] for name in sorted(levels)}


def _double(x: Float[Array, "N h w D"]) -> Float[Array, "N H W D"]:
    """Every cell four times: the nearest neighbour at twice the size."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)

"""Appearance models of RGNNVIS tracks, and the likelihood of detections under them.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 3.4 and table 3. Letters: R tracks, the last one empty, N detections, A
appearance channels, D embedding channels.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import torch_uniform
from vis_jax.layers.recurrence import Recurrence
from vis_jax.ops import gaussian
from vis_jax.typing import Array, Bool, Float32

# Scales the log-likelihood as an edge feature; unscaled values reach 10^6.
_EDGE_SCALE, _EDGE_SHIFT = 0.01, -4.0
# Softplus maps them to variances of 0.1 and 0.0009.
_LEARNED_START, _FIXED_START = -2.25, -7.0
_SPREAD_START = -7.0


class TrackAppearance(NamedTuple):
    """One Gaussian per track."""

    mean: Float32[Array, "R A"]
    var: Float32[Array, "R A"]
    # Outputs and cells of the LSTMs for mean and variance, if any.
    lstm: tuple[tuple[Float32[Array, "R A"], Float32[Array, "R A"]], ...] = ()


class Observation(NamedTuple):
    """Appearance of tracks observed in one frame."""

    appearance: Float32[Array, "R A"]
    embeds: Float32[Array, "R D"]  # this frame's embeddings, after the recurrence
    active: Bool[Array, "R"]  # tracks present in the frame
    born: Bool[Array, "R"]  # tracks that start in this frame; they are active


class GaussianRule(NamedTuple):
    """Rule for initialising and updating the Gaussians.

    Attributes:
      kind: gaussian: Eq. 4; constant_variance: only the mean is updated; latest: the
        mean is the last observation, the variance constant; lstm: two LSTMs over the
        observations.
      variance: see `ops.gaussian.update`.
      fixed_start: all channels start with one fixed variance, as in the released code;
        otherwise a learned one.
      from_zero: the first observation updates a zero mean, as in the released code;
        otherwise it becomes the mean.
    """

    kind: Literal["gaussian", "constant_variance", "latest", "lstm"]
    variance: gaussian.VarianceRule
    fixed_start: bool
    from_zero: bool


def as_edges(
    appearance: TrackAppearance, x: Float32[Array, "N A"]
) -> Float32[Array, "R N"]:
    """Returns log-likelihoods of detections, scaled like the other edge features."""
    likelihood = gaussian.log_likelihood(x, appearance.mean, appearance.var)
    return _EDGE_SHIFT + _EDGE_SCALE * likelihood


def empty_appearance(rows: int, width: int, kind: str) -> TrackAppearance:
    """Returns the state before the first frame."""

    def zeros() -> Float32[Array, "R A"]:
        return jnp.zeros((rows, width), jnp.float32)

    lstm = tuple((zeros(), zeros()) for _ in range(2)) if kind == "lstm" else ()
    return TrackAppearance(zeros(), jnp.ones_like(zeros()), lstm)


class TrackModel(nn.Module):
    """Initialises and updates the Gaussians; all tracks share the weights.

    Attributes:
      width: A.
      dim: D.
      rule: see the type.
    """

    width: int
    dim: int
    rule: GaussianRule

    def setup(self) -> None:
        def rate(kernel_init: Any, bias_init: Any) -> nn.Dense:
            return nn.Dense(1, kernel_init=kernel_init, bias_init=bias_init)

        if self.rule.kind == "gaussian":
            init = torch_uniform(self.dim)
            self.var_rate = rate(init, init)
            start = nn.initializers.constant(_SPREAD_START)
            self.spread = rate(nn.initializers.xavier_uniform(), start)
        if self.rule.kind in ("gaussian", "constant_variance"):
            init = torch_uniform(self.dim)
            self.mean_rate = rate(init, init)
        if self.rule.kind == "lstm":
            init = torch_uniform(self.width)
            self.memories = [Recurrence("lstm", feedback=True) for _ in range(2)]
            self.outputs = [
                nn.Dense(self.width, kernel_init=init, bias_init=init) for _ in range(2)
            ]
        self.starts = [self._start(name) for name in ("start", "empty_start")]

    def begin(
        self,
        appearance: TrackAppearance,
        background: Float32[Array, "A"],
        begun: Bool[Array, ""],
    ) -> TrackAppearance:
        """Initialises all variances, and the mean of the empty track.

        Has no effect after the first frame.

        Args:
          appearance: before the frame.
          background: appearance of the whole frame.
          begun: whether this is not the first frame.
        """
        own, empty = (jax.nn.softplus(start) for start in self.starts)
        var = jnp.broadcast_to(own[None], appearance.var.shape).at[-1].set(empty)
        mean = appearance.mean.at[-1].set(background)
        first = appearance._replace(mean=mean, var=var)
        return jax.tree.map(lambda a, b: jnp.where(begun, a, b), appearance, first)

    def __call__(
        self, appearance: TrackAppearance, seen: Observation
    ) -> TrackAppearance:
        """Returns the Gaussians after a frame."""
        update = self._by_lstm if self.rule.kind == "lstm" else self._by_rates
        new = update(appearance, seen)
        active = seen.active[:, None]
        return jax.tree.map(lambda a, b: jnp.where(active, b, a), appearance, new)

    def _by_rates(
        self, appearance: TrackAppearance, seen: Observation
    ) -> TrackAppearance:
        # Slots are used once, so those of new tracks still have their initial values.
        mean, var, born = appearance.mean, appearance.var, seen.born[:, None]
        if self.rule.kind == "latest":
            return TrackAppearance(seen.appearance, var)
        kappa = _rate(self.mean_rate, seen.embeds)
        if self.rule.kind == "constant_variance":
            new_mean, new_var = kappa[:, None] * seen.appearance, var
            new_mean += (1.0 - kappa[:, None]) * mean
        else:
            new_mean, new_var = gaussian.update(
                seen.appearance,
                mean,
                var,
                mean_rate=kappa,
                var_rate=_rate(self.var_rate, seen.embeds),
                spread=jax.nn.softplus(self.spread(seen.embeds)[:, 0]),
                rule=self.rule.variance,
            )
        if not self.rule.from_zero:
            new_mean = jnp.where(born, seen.appearance, new_mean)
            new_var = jnp.where(born, var, new_var)
        return TrackAppearance(new_mean, new_var)

    def _by_lstm(
        self, appearance: TrackAppearance, seen: Observation
    ) -> TrackAppearance:
        steps = [
            memory(seen.appearance, *state)
            for memory, state in zip(self.memories, appearance.lstm, strict=True)
        ]
        mean, var = (
            output(hidden)
            for output, (hidden, _) in zip(self.outputs, steps, strict=True)
        )
        return TrackAppearance(mean, jax.nn.softplus(var), tuple(steps))

    def _start(self, name: str) -> Float32[Array, "_"]:
        """Returns the pre-softplus value: learned, or fixed for every channel."""
        if self.rule.fixed_start:
            full = jnp.full((self.width,), _FIXED_START, jnp.float32)
            return self.variable("constants", name, lambda: full).value
        init = nn.initializers.constant(_LEARNED_START)
        return self.param(name, init, (1,), jnp.float32)


def _rate(layer: nn.Dense, embeds: Float32[Array, "R D"]) -> Float32[Array, "R"]:
    return jax.nn.sigmoid(layer(embeds)[:, 0])

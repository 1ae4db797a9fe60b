"""AdamW and SGD with clipping, and a rate and a decay for each parameter."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from vis_jax.params import match_rules
from vis_jax.train import schedules


class Optimizer(NamedTuple):
    """What a step needs to turn a loss into an update."""

    transform: optax.GradientTransformation
    learning_rate: schedules.Schedule  # of a parameter with multiplier 1
    freeze: Callable  # params -> params; no gradient where the multiplier is 0


def build(config: ConfigDict, *, num_steps: int, params: dict) -> Optimizer:
    """The optimiser that `config.optimizer` describes.

    The global norm of all gradients is clipped before anything else. Both kinds follow
    PyTorch: the learning rate multiplies the whole update, decay and momentum included.

    Args:
      config: `config.optimizer`; `kind` is 'adamw', also if absent, or 'sgd'. `rates`
        and `decays` are pairs (regex, multiplier) over parameter paths, the first match
        wins. `clip_norm` None: no clipping. `warmup_factor`: see `schedules.Warmup`; 0
        if absent.
      num_steps: updates of the whole run.
      params: the parameters, or their shapes.

    Raises:
      ValueError: on an unknown kind or schedule, a value missing or out of range or a
        parameter that no rule matches.
    """
    _check(config)
    rates = match_rules(params, config.rates)
    decay = _add_weight_decay(config.weight_decay, match_rules(params, config.decays))
    schedule = _schedule(config, num_steps)
    clip = config.clip_norm
    return Optimizer(
        optax.chain(
            optax.identity() if clip is None else optax.clip_by_global_norm(clip),
            *(_sgd(config, decay) if _kind(config) == "sgd" else _adamw(config, decay)),
            _scale_each(rates),
            optax.scale_by_learning_rate(schedule),
        ),
        schedule,
        lambda params: jax.tree.map(_stop_if_zero, params, rates),
    )


def _kind(config: ConfigDict) -> str:
    return config.get("kind", "adamw")


def _adamw(
    config: ConfigDict, decay: optax.GradientTransformation
) -> tuple[optax.GradientTransformation, ...]:
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.

    Algorithm 2, with the decay multiplied by the learning rate.
    """
    return optax.scale_by_adam(*config.betas, config.eps), decay


def _sgd(
    config: ConfigDict, decay: optax.GradientTransformation
) -> tuple[optax.GradientTransformation, ...]:
    """buffer = momentum * buffer + gradient + decay * parameter, which is the update.

    Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, in the form of `torch.optim.SGD` with dampening 0.
    """
    return decay, optax.trace(config.momentum)


def _schedule(config: ConfigDict, num_steps: int) -> schedules.Schedule:
    rate = config.learning_rate
    warmup = schedules.Warmup(config.warmup_steps, config.get("warmup_factor", 0.0))
    if config.schedule == "step":
        return schedules.step(rate, decay_at=config.decay_at, warmup=warmup)
    return schedules.cosine(rate, num_steps=num_steps, warmup=warmup)


def _add_weight_decay(decay: float, multipliers: dict) -> optax.GradientTransformation:
    def add(updates: dict, params: dict) -> dict:
        return jax.tree.map(
            lambda update, param, multiplier: update + decay * multiplier * param,
            updates,
            params,
            multipliers,
        )

    return optax.stateless(add)


def _scale_each(multipliers: dict) -> optax.GradientTransformation:
    def scale(updates: dict, params: dict) -> dict:
        del params
        return jax.tree.map(lambda update, by: by * update, updates, multipliers)

    return optax.stateless(scale)


def _stop_if_zero(param: jax.Array, multiplier: float) -> jax.Array:
    return param if multiplier else jax.lax.stop_gradient(param)


def _check(config: ConfigDict) -> None:
    if _kind(config) not in ("adamw", "sgd"):
        raise ValueError(
            f"optimizer.kind: expected 'adamw' or 'sgd', got {config.kind!r}"
        )
    for name in ("momentum",) if _kind(config) == "sgd" else ("betas", "eps"):
        if name not in config:
            raise ValueError(f"optimizer.{name}: expected for {_kind(config)}, not set")
    for name in ("momentum", "warmup_factor"):
        if not 0 <= config.get(name, 0.0) < 1:
            raise ValueError(
                f"optimizer.{name}: expected at least 0 and below 1, got {config[name]}"
            )
    if config.schedule not in ("step", "cosine"):
        raise ValueError(
            f"optimizer.schedule: expected 'step' or 'cosine', got {config.schedule!r}"
        )
    for name in ("learning_rate", "weight_decay", "warmup_steps"):
        if config[name] < 0:
            raise ValueError(f"optimizer.{name}: expected >= 0, got {config[name]}")
    if config.clip_norm is not None and config.clip_norm <= 0:
        raise ValueError(
            f"optimizer.clip_norm: expected > 0 or None, got {config.clip_norm}"
        )
    for name in ("rates", "decays"):
        if any(multiplier < 0 for _, multiplier in config[name]):
            raise ValueError(f"optimizer.{name}: expected multipliers >= 0")

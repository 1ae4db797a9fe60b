"""AdamW, Adam and SGD with clipping and per-parameter learning rates and decays."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import optax

from vis_jax.params import check_regexes, flatten, match_rules
from vis_jax.settings import Natural, Range, Weight, section
from vis_jax.training import schedules

Momentum = Annotated[float, Range(least=0, below=1)]
# (regex over parameter paths, multiplier): the first match wins, and every parameter
# must match.
Multipliers = Annotated[tuple[tuple[str, float], ...], Range(least=0)]


@section
class _Common:
    """Settings common to all kinds of optimisers."""

    # Rate after the warm-up, for parameters with multiplier 1.
    learning_rate: Weight = 1e-4
    weight_decay: Weight = 0.05  # for parameters with multiplier 1
    # Maximum global norm of the gradients; None = no clipping.
    clip_norm: Annotated[float, Range(above=0)] | None = None
    warmup_steps: Natural = 0  # number of updates of the linear warm-up
    # Fraction of the rate at update 0; 0 = 1 / warmup_steps. Only with warmup_steps.
    warmup_factor: Annotated[float, Range(least=0, below=1)] = 0.0
    # step: the rate is divided by 10 at each update of decay_at; cosine and poly: it
    # decays to 0 at num_steps, poly as (1 - progress)^0.9.
    schedule: Literal["step", "cosine", "poly"] = "step"
    decay_at: tuple[Natural, ...] = ()  # updates, ascending; only for step
    rates: Multipliers = ((".*", 1.0),)  # learning-rate multipliers; 0 = frozen
    decays: Multipliers = ((".*", 1.0),)  # weight-decay multipliers
    # Parameters whose training starts later: (regex, updates before the start, updates
    # of their warm-up); the schedule covers the rest of the run. Not with step.
    late: tuple[tuple[str, int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.schedule != "step" and self.decay_at:
            raise ValueError(
                f"decay_at: expected () with optimizer.schedule {self.schedule!r},"
                f" which has no steps, got {self.decay_at}"
            )
        if self.schedule == "step" and self.late:
            raise ValueError(
                f"late: expected () with optimizer.schedule 'step', got {self.late}"
            )
        for name in ("rates", "decays", "late"):
            check_regexes(name, [pattern for pattern, *_ in getattr(self, name)])
        if any(min(waits, warmup) < 0 for _, waits, warmup in self.late):
            raise ValueError(f"late: expected updates from 0, got {self.late}")
        if self.warmup_factor and not self.warmup_steps:
            raise ValueError(
                "warmup_factor: expected 0.0 with optimizer.warmup_steps 0, got"
                f" {self.warmup_factor}"
            )


@section
class _Moments(_Common):
    """Settings common to Adam and AdamW."""

    betas: tuple[Momentum, Momentum] = (0.9, 0.999)  # decay of both moments
    eps: Weight = 1e-8  # added to the root of the second moment


@section
class AdamW(_Moments):
    """`optimizer`: AdamW, whose weight decay does not affect the moments."""

    kind: Literal["adamw"] = "adamw"  # or adam, sgd, with fields of their own


@section
class Adam(_Moments):
    """`optimizer`: Adam, as in PyTorch."""

    kind: Literal["adam"] = "adam"  # or adamw, sgd, with fields of their own
    # Factor of the parameter that is added to its gradient, with multiplier 1.
    weight_decay: Weight = 0.0


@section
class SGD(_Common):
    """`optimizer`: gradient descent with momentum, as in PyTorch."""

    kind: Literal["sgd"] = "sgd"  # or adamw, adam, with fields of their own
    momentum: Momentum = 0.9  # fraction of the previous update that is kept


Settings = AdamW | Adam | SGD


class Optimizer(NamedTuple):
    """Functions that turn gradients into an update."""

    transform: optax.GradientTransformation
    learning_rate: schedules.Schedule  # rate of a parameter with multiplier 1
    freeze: Callable  # params -> params; stops gradients where the multiplier is 0


def build(config: Settings, *, num_steps: int, params: dict) -> Optimizer:
    """Builds the optimiser of a config.

    Gradients are first clipped by their global norm. All kinds follow PyTorch: the
    learning rate multiplies the whole update, including decay and momentum.

    Args:
      config: the section `optimizer`.
      num_steps: updates of the whole run.
      params: the parameters, or their shapes.

    Raises:
      ValueError: no rule matches a parameter, or the schedule does not fit the run.
    """
    rates, decays = _multipliers(params, config)
    decay = _add_weight_decay(config.weight_decay, decays)
    schedule = _schedule(config, num_steps)
    clip = config.clip_norm
    return Optimizer(
        optax.chain(
            optax.identity() if clip is None else optax.clip_by_global_norm(clip),
            *_direction(config, decay),
            _scale_each(rates),
            optax.scale_by_learning_rate(schedule)
            if not config.late
            else _scale_late(schedule, _late(config, num_steps, params)),
        ),
        schedule,
        lambda params: jax.tree.map(_stop_if_zero, params, rates),
    )


def _multipliers(params: dict, config: Settings) -> tuple[dict, dict]:
    """Returns the multipliers of the learning rate and of the decay, like `params`."""
    return (
        match_rules(params, config.rates, field="optimizer.rates"),
        match_rules(params, config.decays, field="optimizer.decays"),
    )


def _direction(
    config: Settings, decay: optax.GradientTransformation
) -> tuple[optax.GradientTransformation, ...]:
    """Returns transforms from gradients to updates, before the learning rate."""
    match config:
        case AdamW():
            return _adamw(config, decay)
        case Adam():
            return _adam(config, decay)
        case SGD():
            return _sgd(config, decay)


def _adamw(
    config: AdamW, decay: optax.GradientTransformation
) -> tuple[optax.GradientTransformation, ...]:
    """Returns AdamW, with the decay multiplied by the learning rate.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019,
    Algorithm 2.
    """
    return optax.scale_by_adam(*config.betas, config.eps), decay


def _adam(
    config: Adam, decay: optax.GradientTransformation
) -> tuple[optax.GradientTransformation, ...]:
    """Returns Adam on gradients with L2 decay.

    Kingma and Ba, "Adam", ICLR 2015, Algorithm 1. The decay enters the moments, as in
    `torch.optim.Adam`.
    """
    return decay, optax.scale_by_adam(*config.betas, config.eps)


def _sgd(
    config: SGD, decay: optax.GradientTransformation
) -> tuple[optax.GradientTransformation, ...]:
    """Returns SGD: update = buffer = momentum * buffer + gradient + decay * parameter.

    Sutskever et al., "On the importance of initialization and momentum in deep
    learning", ICML 2013, in the form of `torch.optim.SGD` with dampening 0.
    """
    return decay, optax.trace(config.momentum)


def check_schedule(config: Settings, num_steps: int) -> None:
    """Raises ValueError unless the schedule fits a run of `num_steps` updates."""
    _schedule(config, num_steps)
    for regex, waits, warmup in config.late:
        if waits + warmup >= num_steps:
            raise ValueError(
                "optimizer.late: expected warm-ups that end before num_steps ="
                f" {num_steps}, got {(regex, waits, warmup)}"
            )


def _schedule(config: Settings, num_steps: int) -> schedules.Schedule:
    rate = config.learning_rate
    warmup = schedules.Warmup(config.warmup_steps, config.warmup_factor)
    try:
        if config.schedule == "step":
            return schedules.step(rate, decay_at=config.decay_at, warmup=warmup)
        return _FALLING[config.schedule](rate, num_steps=num_steps, warmup=warmup)
    except ValueError as error:  # begins with the field
        raise ValueError(f"optimizer.{error}") from None


_FALLING = {"cosine": schedules.cosine, "poly": schedules.poly}


def _late(config: Settings, num_steps: int, params: dict) -> dict:
    """Returns the schedule of each late-starting parameter, None for the others."""

    def starting(waits: int, warmup: int) -> schedules.Schedule:
        falling = _FALLING[config.schedule](
            config.learning_rate,
            num_steps=num_steps - waits,
            warmup=schedules.Warmup(warmup, 0.0),
        )
        return schedules.delayed(falling, waits)

    found = [starting(waits, warmup) for _, waits, warmup in config.late]
    rules = [(regex, float(i)) for i, (regex, *_) in enumerate(config.late)]
    places = match_rules(params, (*rules, (".*", -1.0)))
    return jax.tree.map(lambda i: found[int(i)] if i >= 0 else None, places)


def _scale_late(usual: schedules.Schedule, late: dict) -> optax.GradientTransformation:
    """Like `optax.scale_by_learning_rate`, with own schedules for some parameters.

    Its state is the same: the number of updates.
    """
    whole = optax.scale_by_learning_rate(usual)

    def update(updates: dict, state: Any, params: Any = None) -> tuple[dict, Any]:
        scaled, after = whole.update(updates, state, params)

        def own(schedule: schedules.Schedule | None, plain: Any, whole: Any) -> Any:
            return whole if schedule is None else -schedule(state.count) * plain

        none = {"is_leaf": lambda x: x is None}
        return jax.tree.map(own, late, updates, scaled, **none), after

    return optax.GradientTransformation(whole.init, update)


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


def _stop_if_zero(param: Any, multiplier: float) -> Any:
    return param if multiplier else jax.lax.stop_gradient(param)


def parameter_table(params: dict[str, Any], settings: Settings) -> str:
    """Formats a line per part of the model and combination of multipliers.

    Args:
      params: arrays or their shapes.
      settings: optimiser settings, with the multipliers.
    """
    multipliers: list[Any] = [flatten(x) for x in _multipliers(params, settings)]
    rates, decays = multipliers
    leaves: Any = flatten(params)
    counts: dict[tuple[str, float, float], int] = {}
    for path, leaf in leaves.items():
        key = (path.split("/")[0], rates[path], decays[path])
        counts[key] = counts.get(key, 0) + leaf.size
    lines = [f"{'part':<16}{'parameters':>13}  {'rate':>9}  {'decay':>9}"]
    for (part, rate, decay), count in counts.items():
        speed = f"{settings.learning_rate * rate:9.3g}" if rate else f"{'frozen':>9}"
        shrink = f"{settings.weight_decay * decay * bool(rate):9.3g}"
        lines.append(f"{part:<16}{count:>13,}  {speed}  {shrink}")
    return "\n".join([*lines, f"{'all':<16}{sum(counts.values()):>13,}"])

"""A table of the parameters of a model, and how each part of it is trained."""

from typing import Any

from vis_jax.params import flatten, match_rules
from vis_jax.training.optimizer import Settings


def parameter_table(params: dict[str, Any], settings: Settings) -> str:
    """A line for each part of the model and each way its parameters are trained.

    Args:
      params: arrays or their shapes.
      settings: of the optimiser, which has the multipliers.
    """
    rates: Any = flatten(match_rules(params, settings.rates))
    decays: Any = flatten(match_rules(params, settings.decays))
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

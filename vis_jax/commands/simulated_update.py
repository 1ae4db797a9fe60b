"""Child process of `train --dry_run --mesh`: JAX with simulated devices.

Reads a JSON object, {"config": all settings, "compile": bool}, and writes a line of
JSON per stage: the results of lowering, then of compiling.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vis_jax.training.hlo import Collective

# Linux; 1000: ended first when memory is short.
_FIRST_TO_END = Path("/proc/self/oom_score_adj")


def main() -> int:
    """Runs the process; returns exit code 2 after a line with a user error."""
    if _FIRST_TO_END.exists():
        _FIRST_TO_END.write_text("1000")
    wanted = json.load(sys.stdin)
    try:
        _simulate(wanted["config"], compiles=wanted["compile"])
    except ValueError as error:
        _write({"error": str(error)})
        return 2
    return 0


def _simulate(config: dict, *, compiles: bool) -> None:
    from vis_jax.commands.run_settings import read_run
    from vis_jax.commands.train_checks import training_shapes, training_system
    from vis_jax.training.simulate import compile_update, lower_update

    run = read_run(config)
    system = training_system(run)
    shapes = training_shapes(run, system, clips=run.data.batch_size)
    lowered = lower_update(run, system, shapes)
    stored = sum(lowered.stored.values())
    _write(
        {
            "stored": lowered.stored,
            "working": lowered.working,
            "flops": lowered.flops,
            "chips": _chips(lowered.flops, 2 * stored, ()),
        }
    )
    if not compiles:
        return
    found = compile_update(lowered)
    moved = 2 * (found.arguments + found.working)
    _write(
        {
            "arguments": found.arguments,
            "working": found.working,
            "sent": _by_kind(found.exchanged),
            "chips": _chips(lowered.flops, moved, found.exchanged),
        }
    )


def _chips(
    flops: float, moved: float, exchanged: "Sequence[Collective]"
) -> dict[str, tuple[float, ...]]:
    from vis_jax.training.chips import CHIPS, roofline

    return {
        name: tuple(roofline(chip, flops=flops, moved=moved, exchanged=exchanged))
        for name, chip in CHIPS.items()
    }


def _by_kind(exchanged: "Sequence[Collective]") -> dict[str, tuple[int, float]]:
    """Returns, by kind, the collectives per step and the bytes a device sends."""
    found: dict[str, tuple[int, float]] = {}
    for one in exchanged:
        times, sent = found.get(one.kind, (0, 0.0))
        found[one.kind] = (times + one.times, sent + one.sent)
    return found


def _write(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    sys.exit(main())

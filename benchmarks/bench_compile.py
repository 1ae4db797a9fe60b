"""Measures the compile time of a training step, and the memory XLA plans for it.

Run: python -m benchmarks.bench_compile --configs configs/rgnn_vis_r50.py [--classes 40]

Nothing is executed: weights and clips are shapes, with the recipe's batch size. The
first column is Python's part, tracing and lowering; the second is XLA's.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peer import print_machine
from vis_jax.commands.config_file import read_recipe
from vis_jax.commands.run_settings import RunSettings, read_run, with_classes
from vis_jax.systems import SYSTEMS
from vis_jax.training import optimizer as optimizers
from vis_jax.training.dry_run import batch_shapes
from vis_jax.training.sharding import make_mesh
from vis_jax.training.state import TrainState
from vis_jax.training.step import make_update


def lowered_step(run: RunSettings) -> Any:
    """Lowers the update of a run for one device."""
    system = SYSTEMS[run.system].build(run)
    data = run.data
    height, width = data.canvas
    batch = batch_shapes(
        B=data.batch_size, T=data.frames, H=height, W=width, M=data.instances
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = dict(jax.eval_shape(system.init, key, batch))
    optimizer = optimizers.build(
        run.optimizer, num_steps=run.num_steps, params=variables["params"]
    )
    moments = jax.eval_shape(optimizer.transform.init, variables["params"])
    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(step, variables, moments, key)
    update: Any = make_update(system, optimizer, state=state, mesh=make_mesh())
    return update.lower(state, batch)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", nargs="+", required=True)
    parser.add_argument("--classes", type=int, default=40, help="where data say them")
    given = parser.parse_args()
    print_machine(jax.devices()[0].device_kind)
    print("trace s  compile s  temporary GB  recipe")
    for config in given.configs:
        run = read_run(read_recipe(config))
        run = with_classes(run, run.model.num_classes or given.classes)
        start = time.perf_counter()
        lowered = lowered_step(run)
        middle = time.perf_counter()
        compiled = lowered.compile()
        end = time.perf_counter()
        temporary = compiled.memory_analysis().temp_size_in_bytes / 1e9
        print(
            f"{middle - start:7.1f}  {end - middle:9.1f}  {temporary:12.1f}  {config}",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Measures the memory that XLA plans for a system's step at test time.

Run: python -m benchmarks.bench_step_memory --config configs/ifr_r50.py [--frames 36]

Compiles `step` for one canvas and prints in MB its memory besides its arguments
(temporary) and the size of its results (state and predictions). Reads no weights and no
data.
"""

import argparse
from typing import Any

import jax
import numpy as np

from vis_jax.commands.config_file import read_recipe
from vis_jax.commands.run_settings import read_run, with_classes
from vis_jax.structures import Clip
from vis_jax.systems import SYSTEMS
from vis_jax.training.dry_run import batch_shapes


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--classes", type=int, default=25)
    parser.add_argument("--frames", type=int, nargs="+", default=[96])
    parser.add_argument("--canvas", type=int, nargs=2, default=[384, 640])
    given = parser.parse_args()
    run = with_classes(read_run(read_recipe(given.config)), given.classes)
    system = SYSTEMS[run.system].build(run)
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    variables = jax.eval_shape(system.init, key, batch)
    print(f"{given.config}, canvas {given.canvas[0]} x {given.canvas[1]}")
    print("frames  temporary MB  returned MB")
    for frames in given.frames:
        clip = _clip(frames, *given.canvas)
        state = jax.eval_shape(system.start, clip)
        compiled = jax.jit(system.step).lower(variables, state, clip).compile()
        found: Any = compiled.memory_analysis()
        sizes = (found.temp_size_in_bytes / 1e6, found.output_size_in_bytes / 1e6)
        print(f"{frames:6d}  {sizes[0]:12.0f}  {sizes[1]:11.0f}", flush=True)


def _clip(frames: int, height: int, width: int) -> Clip:
    """Returns a clip of shapes."""
    shape: Any = jax.ShapeDtypeStruct
    return Clip(
        images=shape((frames, height, width, 3), np.uint8),
        frame_valid=shape((frames,), bool),
        size=shape((2,), np.int32),
        start=shape((), np.int32),
        last=shape((), bool),
    )


if __name__ == "__main__":
    main()

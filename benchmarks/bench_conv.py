"""Compares the speed of our gradient of convolutions with XLA's.

Run: python -m benchmarks.bench_conv [--rounds 3]

Gradients of a 3 x 3 convolution with respect to maps and kernel, for two batches at
once and in a loop over the two (`lax.map`), as in systems that process clips frame by
frame. Seconds of processor time, medians over rounds in which both take turns.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.peer import print_machine
from vis_jax.ops.conv import convolve

# Images, height, width, channels in and out, stride.
SHAPES = (
    (4, 12, 20, 64, 64, 1),
    (4, 24, 40, 64, 128, 2),
    (8, 64, 64, 16, 16, 1),
    (2, 48, 80, 64, 64, 1),
)


def make_call(form, shape: tuple[int, ...], in_loop: bool):
    """Compiles a gradient."""
    *size, channels, features, stride = shape
    keys = jax.random.split(jax.random.key(0), 2)
    maps = jax.random.normal(keys[0], (2, *size, channels))
    kernel = jax.random.normal(keys[1], (3, 3, channels, features))

    def loss(maps, kernel):
        def one(x):
            return jnp.sin(form(x, kernel, stride)).sum()

        if in_loop:
            return jax.lax.map(one, maps).sum()
        return one(maps.reshape(-1, *maps.shape[2:]))

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(maps, kernel).compile()
    return lambda: jax.block_until_ready(compiled(maps, kernel))


def timed(call) -> float:
    """Returns the processor time of one call in seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Prints a row for each shape."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print_machine(jax.devices()[0].device_kind)
    print(f"{'images, size, channels, stride':<32}{'':<6}    ours     XLA    ratio")
    for shape in SHAPES:
        for in_loop in (False, True):
            calls = [
                make_call(form, shape, in_loop) for form in (convolve, convolve.fun)
            ]
            rounds = [[timed(call) for call in calls] for _ in range(args.rounds + 1)]
            ours, xla = (
                statistics.median(column)
                for column in zip(*rounds[1:], strict=True)  # the first round warms up
            )
            where = "loop" if in_loop else ""
            text = f"{shape!s:<32}{where:<6}{ours:8.4f}{xla:8.4f}{xla / ours:9.2f}"
            print(text, flush=True)


if __name__ == "__main__":
    main()

"""Compares the speed of our gradient of convolutions with XLA's.

Run: python -m benchmarks.bench_conv [--rounds 3]
     python -m benchmarks.bench_conv --depthwise

Gradients of a 3 x 3 convolution with respect to maps and kernel, for two batches at
once and in a loop over the two (`lax.map`), as in systems that process clips frame by
frame. With --depthwise, those of a depth-wise convolution beside the same sum of
shifted maps without its own gradient, and beside XLA's convolution with groups.
Seconds of processor time, medians over rounds in which all take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.peer import print_machine
from vis_jax.ops.conv import convolve
from vis_jax.ops.depthwise import depthwise

# Images, height, width, channels in and out, stride.
SHAPES = (
    (4, 12, 20, 64, 64, 1),
    (4, 24, 40, 64, 128, 2),
    (8, 64, 64, 16, 16, 1),
    (2, 48, 80, 64, 64, 1),
)
# Images, height, width, channels; side of the kernel. The last is IAI's.
DEPTHWISE_SHAPES = ((8, 24, 40, 128, 3), (1, 160, 160, 384, 3), (4, 24, 40, 1024, 5))


def make_call(
    form: Callable[..., jax.Array], shape: tuple[int, ...], in_loop: bool
) -> Callable[[], object]:
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


def timed(call: Callable[[], object]) -> float:
    """Returns the processor time of one call in seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def make_depthwise_call(
    form: Callable[..., jax.Array], shape: tuple[int, ...]
) -> Callable[[], object]:
    """Compiles the gradient of a depth-wise convolution."""
    *size, channels, side = shape
    keys = jax.random.split(jax.random.key(0), 2)
    maps = jax.random.normal(keys[0], (*size, channels))
    kernel = jax.random.normal(keys[1], (side, side, 1, channels))

    def loss(maps, kernel):
        return jnp.sin(form(maps, kernel)).sum()

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(maps, kernel).compile()
    return lambda: jax.block_until_ready(compiled(maps, kernel))


def grouped(maps, kernel):
    """XLA's convolution with as many groups as channels."""
    return jax.lax.conv_general_dilated(
        maps,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=maps.shape[-1],
    )


def medians(calls: list, rounds: int) -> list[float]:
    """Returns the median seconds of each call, after a round that warms up."""
    found = [[timed(call) for call in calls] for _ in range(rounds + 1)]
    return [statistics.median(column) for column in zip(*found[1:], strict=True)]


def compare_depthwise(rounds: int) -> None:
    """Prints a row for each shape of a depth-wise convolution."""
    print(f"{'images, size, channels, side':<32}    ours autodiff  groups")
    for shape in DEPTHWISE_SHAPES:
        forms = (depthwise, depthwise.fun, grouped)
        found = medians([make_depthwise_call(form, shape) for form in forms], rounds)
        print(f"{shape!s:<32}" + "".join(f"{x:8.4f}" for x in found), flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depthwise", action="store_true")
    args = parser.parse_args()
    print_machine(jax.devices()[0].device_kind)
    if args.depthwise:
        compare_depthwise(args.rounds)
        return
    print(f"{'images, size, channels, stride':<32}{'':<6}    ours     XLA    ratio")
    for shape in SHAPES:
        for in_loop in (False, True):
            calls = [
                make_call(form, shape, in_loop) for form in (convolve, convolve.fun)
            ]
            ours, xla = medians(calls, args.rounds)
            where = "loop" if in_loop else ""
            text = f"{shape!s:<32}{where:<6}{ours:8.4f}{xla:8.4f}{xla / ours:9.2f}"
            print(text, flush=True)


if __name__ == "__main__":
    main()

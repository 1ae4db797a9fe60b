"""Compares the speed of deformable attention: ours, its definition, and PyTorch's.

Run: python -m benchmarks.bench_ops [--peer_python PYTHON]

Every token of strides 32, 16 and 8 samples 4 points per level with 8 heads of 32
channels, as in the pixel decoder of Mask2Former. "definition" weights every pixel of a
level by the product of two hat functions, with one matrix product per group of queries,
as a one-hot formulation does. "peer" is the PyTorch code of Hugging Face transformers,
which calls grid_sample. Milliseconds, medians over rounds in which all take turns.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.peer import add_arguments, compare, print_machine, seconds
from vis_jax.ops.deform_attn import deform_attn

HEADS, POINTS, DIM = 8, 4, 32
GROUP = 64  # queries per matrix product: 64 x 8 x 3,840 weights at 384 x 640


def by_definition(values, locations, weights, *, shapes):
    """Sums hat x hat x weight x value over all pixels."""

    def query(inputs):
        at, weight = inputs
        out, start = 0.0, 0
        for level, (height, width) in enumerate(shapes):
            point = at[:, level] * jnp.asarray((width, height)) - 0.5
            columns = hat(point[..., 0], width)
            rows = hat(point[..., 1], height)
            seen = jnp.einsum("npy,npx,np->nyx", rows, columns, weight[:, level])
            grid = values[start : start + height * width]
            out += jnp.einsum("ns,snd->nd", seen.reshape(HEADS, -1), grid)
            start += height * width
        return out

    return jax.lax.map(query, (locations, weights), batch_size=GROUP)


def hat(points: jax.Array, size: int) -> jax.Array:
    """Returns each point's weight of each of `size` pixels: max(1 - distance, 0)."""
    distance = jnp.abs(points[..., None] - jnp.arange(size, dtype=jnp.float32))
    return jnp.maximum(1 - distance, 0)


def make_call(
    form: Callable[..., jax.Array], args: argparse.Namespace, backward: bool
) -> Callable[[], object]:
    """Compiles the forward pass, or forward and backward pass."""
    height, width = args.size
    shapes = tuple((height // s, width // s) for s in (32, 16, 8))
    tokens = sum(h * w for h, w in shapes)
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = (
        jax.random.normal(keys[0], (tokens, HEADS, DIM)),
        jax.random.uniform(keys[1], (tokens, HEADS, 3, POINTS, 2)),
        jax.random.uniform(keys[2], (tokens, HEADS, 3, POINTS)),
    )

    def read(*inputs: jax.Array) -> jax.Array:
        return form(*inputs, shapes=shapes)

    if backward:
        run = jax.jit(jax.grad(lambda *x: read(*x).sum(), argnums=(0, 1, 2)))
    else:
        run = jax.jit(read)
    compiled = run.lower(*inputs).compile()
    return lambda: jax.block_until_ready(compiled(*inputs))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args()
    print_machine(jax.devices()[0].device_kind)
    print(f"one frame of {args.size[0]} x {args.size[1]}, float32, milliseconds")
    print("pass                  ours    peer  definition  ratio to peer  (range)")
    for backward in (False, True):
        ours = make_call(deform_attn, args, backward)
        literal = make_call(by_definition, args, backward)
        row = compare(ours, args, what="deform_attn", backward=backward)
        slow = min(seconds(literal) for _ in range(2))
        name = "forward and backward" if backward else "forward"
        print(
            f"{name:<20} {row.ours * 1e3:5.1f} {row.peer * 1e3:7.1f}"
            f" {slow * 1e3:11.1f} {row.ratio:14.2f}"
            f"  ({row.least:.2f} - {row.most:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()

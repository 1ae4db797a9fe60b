"""Compares the speed of two forms of MaskProp's propagation: shared taps and direct.

Run: python -m benchmarks.bench_propagation [--instances 10] [--size 48 80] [--rounds 3]

Both compute the masks of all instances of a centre frame in one other frame, from
prepared features, with the same parameters. "direct" is the definition: one deformable
convolution (`ops/deform_conv`) per dilation and instance. "shared" is the form in
`association/propagation`; it includes the taps of the centre frame, although all frames
of a clip share them. Gradients are those of a sum with respect to features, masks and
parameters. Seconds of processor time, medians over rounds in which both take turns; MB
of memory that XLA plans besides inputs and results, shared / direct.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.peer import print_machine
from vis_jax.association.propagation import MaskPropagation, Settings
from vis_jax.ops.deform_conv import deform_conv


def direct(
    model: MaskPropagation, variables: Any, centre: Any, other: Any, masks: jax.Array
) -> jax.Array:
    """Propagates each instance's mask by its own deformable convolutions."""
    params, dilations = variables["params"], model.settings.dilations
    offsets: Any = model.apply(variables, centre, other, method="offsets")
    parts = jnp.split(offsets, len(dilations), axis=2)

    # Without it the gradient would store the samples of all instances.
    @jax.checkpoint
    def one(mask):
        instance = centre.features * mask[..., None]
        warped = [
            deform_conv(
                instance,
                params[f"warp_{dilation}"],
                part.reshape(*mask.shape, 1, 3, 3, 2),
                modulation=None,
                stride=1,
                padding=dilation,
                dilation=dilation,
            )
            for dilation, part in zip(dilations, parts, strict=True)
        ]
        fused = jax.nn.relu(sum(warped) / len(dilations) + other.features)
        return (fused @ params["mask_kernel"])[..., 0] + params["mask_bias"]

    shares = jax.nn.softmax(jax.lax.map(one, masks), axis=0)
    return shares * other.attention


def shared(
    model: MaskPropagation, variables: Any, centre: Any, other: Any, masks: jax.Array
) -> jax.Array:
    """Propagates all masks with shared taps."""
    apply: Any = functools.partial(model.apply, variables)
    taps = apply(centre.features, method="taps")
    valid = jnp.ones(len(masks), bool)
    return apply(centre, taps, other, masks, valid, method="propagate")


def make_inputs(model: MaskPropagation, args: argparse.Namespace) -> tuple:
    """Makes random parameters, two prepared frames and masks."""
    keys = iter(jax.random.split(jax.random.key(0), 4))
    frames = jax.random.normal(next(keys), (2, *args.size, model.channels))
    masks = jax.random.uniform(next(keys), (args.instances, *args.size))
    valid = jnp.ones(args.instances, bool)
    variables = jax.jit(model.init)(next(keys), *frames, masks, valid)
    key = next(keys)
    # Offsets of about one cell; initial ones are 0.
    params = {
        name: 0.05 * jax.random.normal(key, value.shape)
        if name.startswith("offsets")
        else value
        for name, value in variables["params"].items()
    }
    variables = {"params": params}
    centre, other = (model.apply(variables, x, method="prepare") for x in frames)
    return variables, centre, other, masks


class Call(NamedTuple):
    """Compiled call, and the memory that XLA plans besides inputs and results."""

    run: Callable[[], Any]
    megabytes: float


def make_call(
    form: Callable[..., jax.Array],
    model: MaskPropagation,
    inputs: tuple,
    backward: bool,
) -> Call:
    """Compiles one form."""
    forward = functools.partial(form, model)

    def total(*given):
        # Squared, as the sum of a softmax has no gradient.
        return jnp.square(forward(*given)).sum()

    run = jax.grad(total, argnums=(0, 1, 2, 3)) if backward else forward
    compiled = jax.jit(run).lower(*inputs).compile()
    memory: Any = compiled.memory_analysis()

    def call():
        return jax.block_until_ready(compiled(*inputs))

    return Call(call, memory.temp_size_in_bytes / 1e6)


class Timed(NamedTuple):
    """Result of a call, and its processor time."""

    result: Any
    seconds: float


def timed(call: Callable[[], object]) -> Timed:
    """Times one call."""
    start = time.process_time()
    result = call()
    return Timed(result, time.process_time() - start)


def difference(a: Any, b: Any) -> float:
    """Returns the largest difference, relative to the largest value of its array.

    It skips the bias of the logits, which cancels in the softmax: its gradient is pure
    rounding error.
    """

    def part(path, x, y):
        if "mask_bias" in jax.tree_util.keystr(path):
            return 0.0
        return abs(x - y).max() / (abs(y).max() + 1e-12)

    parts = jax.tree_util.tree_map_with_path(part, a, b)
    return float(max(jax.tree.leaves(parts)))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(48, 80), help="cells")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--chunk", type=int, default=Settings().chunk)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model = MaskPropagation(Settings(chunk=args.chunk), args.channels)
    inputs = make_inputs(model, args)
    print_machine(jax.devices()[0].device_kind)
    height, width = args.size
    print(
        f"{height} x {width} cells, {args.channels} channels, {args.instances}"
        " instances, float32, seconds"
    )
    print("pass      shared  direct  ratio  (range)        difference  MB")
    for backward in (False, True):
        calls = [make_call(form, model, inputs, backward) for form in (shared, direct)]
        rounds = [[timed(call.run) for call in calls] for _ in range(args.rounds)]
        ratios = sorted(slow.seconds / ours.seconds for ours, slow in rounds)
        medians = [
            statistics.median(one.seconds for one in form)
            for form in zip(*rounds, strict=True)
        ]
        apart = difference(*(one.result for one in rounds[0]))
        print(
            f"{'gradient' if backward else 'forward':<9}"
            f" {medians[0]:6.2f} {medians[1]:7.2f}"
            f" {statistics.median(ratios):6.1f}"
            f"  ({ratios[0]:.1f} - {ratios[-1]:.1f})"
            f"  {apart:12.1e}  "
            + " / ".join(f"{call.megabytes:.0f}" for call in calls),
            flush=True,
        )


if __name__ == "__main__":
    main()

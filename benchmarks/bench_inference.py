"""Speed of inference, against Mask2Former of Hugging Face transformers in PyTorch.

Run: python -m benchmarks.bench_inference [--backbones r50] [--peer_python PYTHON]

Both read `--frames` frames that lie on the device, at the same size, with random
weights, and return classes and masks at a quarter of the size; the peer sees them as
images of a batch. The two take turns, so that both feel the same machine; the ratio is
the median of the ratios of the rounds. The peer needs torch, transformers and scipy.
"""

import argparse
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peer import Timing, add_arguments, compare, print_machine
from vis_jax.commands import settings
from vis_jax.structures import Clip
from vis_jax.train.dry_run import batch_shapes


def make_forward(name: str, args: argparse.Namespace):
    """One forward pass of the system of a config file, compiled."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.compute_dtype = args.dtype
    config.test.chunk = args.frames
    system = settings.build_system(config)
    height, width = args.size
    shapes = batch_shapes(B=1, T=args.frames, H=height, W=width, M=1)
    batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    variables = jax.jit(system.init)(jax.random.key(0), batch)
    noise = np.random.default_rng(0).integers(0, 256, batch.images.shape[1:])
    clip = Clip(
        images=jnp.asarray(noise, jnp.uint8),
        frame_valid=jnp.ones(args.frames, bool),
        size=jnp.asarray((height, width), jnp.int32),
    )
    inputs = jax.device_put((variables, system.start(clip), clip))
    step = jax.jit(system.step).lower(*inputs).compile()
    return lambda: jax.block_until_ready(step(*inputs))


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["r50", "swint"])
    parser.add_argument("--systems", nargs="+", default=["mask2former_vis", "ifr"])
    parser.add_argument("--frames", type=int, default=1)
    add_arguments(parser)
    args = parser.parse_args()
    print_machine(jax.devices()[0].device_kind)
    print(f"{args.frames} frames of {args.size[0]} x {args.size[1]}, {args.dtype}")
    print("system           backbone  frames/s  peer  ratio  (least - most)")
    for backbone in args.backbones:
        for system in args.systems:
            call = make_forward(f"{system}_{backbone}", args)
            row = compare(
                call,
                args,
                what="forward",
                backbone=backbone,
                queries=100,
                batch=args.frames,
                instances=0,
            )
            print_row(f"{system:<16} {backbone:<8}", row, args.frames)


def print_row(name: str, row: Timing, count: int) -> None:
    """One line: calls times `count` a second of both, and the ratio."""
    print(
        f"{name} {count / row.ours:9.3f} {count / row.peer:5.3f} {row.ratio:6.2f}"
        f"  ({row.least:.2f} - {row.most:.2f})",
        flush=True,
    )


if __name__ == "__main__":
    main()

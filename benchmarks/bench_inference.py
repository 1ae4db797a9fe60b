"""Compares the speed of inference with a similar network in PyTorch.

Run: python -m benchmarks.bench_inference [--backbones r50] [--peer_python PYTHON]
     python -m benchmarks.bench_inference --systems mask_track_rcnn --videos 1 4
     python -m benchmarks.bench_inference --systems yolact rgnn_vis --size 480 864
     python -m benchmarks.bench_inference --systems mask_prop --frames 36 --size 384 640
     python -m benchmarks.bench_inference --systems videomt --backbones vits \\
         --frames 5 --size 640 640

The peer is Mask2Former of Hugging Face transformers, or VidEoMT of the same library,
which takes square images only; for systems that detect boxes it is Mask R-CNN of
torchvision with the same number of detections. Both read `--frames` frames of each of
`--videos` videos, already on the device, at the same size and with random weights; the
peer sees them as a batch of images, or of clips. The transformers return classes and
masks of all queries at a quarter of the size, Mask R-CNN masks at the size of the
frame. The two take turns, so that both see the same load; the ratio is the median of
the rounds' ratios.
The peer needs torch, and transformers and scipy or torchvision.
"""

import argparse
import importlib
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peer import Timing, add_arguments, compare, print_machine
from vis_jax.commands import parts
from vis_jax.commands.run_settings import read_run
from vis_jax.evaluate.masks import Sizes, frame_masks
from vis_jax.structures import Clip, Predictions, Render
from vis_jax.training.dry_run import batch_shapes

# Networks of the PyTorch peer.
PEERS = {
    "ifr": "mask2former",
    "mask2former_vis": "mask2former",
    "mask_track_rcnn": "mask_rcnn",
    "yolact": "mask_rcnn",
    "rgnn_vis": "mask_rcnn",
    "condinst": "mask_rcnn",
    "iai_condinst": "mask_rcnn",
    "iai_mask_rcnn": "mask_rcnn",
    "cascade": "mask_rcnn",
    "mask_prop": "mask_rcnn",
    "videomt": "videomt",
}
VITS = {"vits": "small", "vitb": "base", "vitl": "large"}
# Scores of random weights are low: these settings give the maximum numbers of
# detections and tracks, in ours and in the peer.
SURE_OF_NOTHING = {
    "mask_track_rcnn": dict(score=0.0),
    "yolact": dict(score=0.0),
    "rgnn_vis": dict(score=0.0, match=1e-6, start=1e-6),
    "condinst": dict(score=0.0),
    "cascade": dict(score=0.0),
    "mask_prop": dict(score=0.0),
    "iai": dict(score=0.0, id_score=0.0, least=0.0),
    "iai_mask_rcnn": dict(score=0.0, id_score=0.0, least=0.0),
}


class Forward(NamedTuple):
    """Forward pass of a system."""

    call: Callable[[], None]
    detections: int  # maximum per frame


def read_recipe(system: str, backbone: str) -> dict:
    """Returns the config of a system with a backbone."""
    if backbone in VITS:
        module, options = f"configs.{system}", f"size={VITS[backbone]}"
    else:
        module, options = f"configs.{system}_{backbone}", None
    return importlib.import_module(module).get_config(options).to_dict()


def make_forward(
    system: str, backbone: str, args: argparse.Namespace, videos: int
) -> Forward:
    """Compiles one forward pass of a system for several videos."""
    network, config = PEERS[system], read_recipe(system, backbone)
    config["compute_dtype"] = args.dtype
    config["test"]["chunk"] = args.chunk or args.frames
    config["test"].update(SURE_OF_NOTHING.get(config["system"], {}))
    run = read_run(config)
    built = parts.build_system(run)
    size = (args.size[0], args.size[1])
    shapes = batch_shapes(B=1, T=args.frames, H=size[0], W=size[1], M=1)
    batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    variables = jax.jit(built.init)(jax.random.key(0), batch)
    shape = (videos, args.frames, *size, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape)
    clips = Clip(
        images=jnp.asarray(noise, jnp.uint8),
        frame_valid=jnp.ones(shape[:2], bool),
        size=jnp.tile(jnp.asarray([size], jnp.int32), (videos, 1)),
        start=jnp.zeros((videos,), jnp.int32),
        last=jnp.zeros((videos,), bool),
    )
    one = jax.tree.map(lambda x: x[0], clips)
    states = jax.tree.map(lambda x: jnp.stack([x] * videos), built.start(one))
    inputs = jax.device_put((variables, states, clips))
    step = jax.vmap(built.step, in_axes=(None, 0, 0))
    compiled = jax.jit(step).lower(*inputs).compile()

    def call() -> None:
        _, found = jax.block_until_ready(compiled(*inputs))
        if network == "mask_rcnn":
            enlarge(found, size, built.render)

    return Forward(call, getattr(run.test, "objects", 0))


def enlarge(found: Predictions, size: tuple[int, int], render: Render) -> None:
    """Resizes masks to the frame, as the peer does."""
    for video in range(len(found.valid)):
        one = jax.tree.map(lambda x, i=video: x[i], found)
        count = one.mask_logits.shape[0]
        masks = frame_masks(
            one, Sizes(size, size, size), render, rows=range(count), at_once=count
        )
        for _ in masks:
            pass


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--backbones", nargs="+", default=["r50", "swint"],
        choices=["r50", "swint", *VITS],
    )  # fmt: skip
    parser.add_argument(
        "--systems", nargs="+", default=["mask2former_vis", "ifr"], choices=PEERS
    )
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument(
        "--chunk", type=int, default=0,
        help="frames whose features are computed at once; 0 (default): all",
    )  # fmt: skip
    parser.add_argument("--videos", type=int, nargs="+", default=[1])
    add_arguments(parser)
    args = parser.parse_args()
    print_machine(jax.devices()[0].device_kind)
    print(f"{args.frames} frames of {args.size[0]} x {args.size[1]}, {args.dtype}")
    print("system           backbone  videos  frames/s  peer  ratio  (least - most)")
    for backbone, system, videos in itertools.product(
        args.backbones, args.systems, args.videos
    ):
        count = videos * args.frames
        forward = make_forward(system, backbone, args, videos)
        row = compare(
            forward.call,
            args,
            what="forward",
            network=PEERS[system],
            backbone=backbone,
            queries=100,
            detections=forward.detections,
            batch=count,
            videos=videos,
            instances=0,
        )
        print_row(f"{system:<16} {backbone:<8} {videos:7}", row, count)


def print_row(name: str, row: Timing, count: int) -> None:
    """Prints a row: `count` times calls per second of both, and their ratio."""
    print(
        f"{name} {count / row.ours:9.3f} {count / row.peer:5.3f} {row.ratio:6.2f}"
        f"  ({row.least:.2f} - {row.most:.2f})",
        flush=True,
    )


if __name__ == "__main__":
    main()

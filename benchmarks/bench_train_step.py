"""Compares the speed of a training step with Mask2Former of Hugging Face transformers.

Run: python -m benchmarks.bench_train_step [--backbones r50] [--peer_python PYTHON]

A step is forward pass, matching, losses of every layer, backward pass, clipping and
AdamW, for `--batch` images with 5 instances each, already on the device, at the same
size and with random weights. Ours is Mask2Former-VIS on clips of one frame, the peer's
model. The two take turns; the ratio is the median of the ratios of all rounds.
"""

import argparse
import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bench_inference import print_row
from benchmarks.peer import add_arguments, compare, print_machine
from vis_jax.commands import parts
from vis_jax.commands.run_settings import read_run
from vis_jax.structures import Batch
from vis_jax.training import optimizer as optimizers
from vis_jax.training.sharding import make_mesh
from vis_jax.training.state import TrainState
from vis_jax.training.step import make_update

INSTANCES = 5


def make_batch(args: argparse.Namespace) -> Batch:
    """Makes noise images with the same overlapping rectangles in each."""
    height, width = args.size
    shape = (args.batch, INSTANCES, 1, height, width)
    masks = np.zeros(shape, bool)
    for i in range(INSTANCES):
        top, bottom, left = height // 4, height // 2, i * width // INSTANCES
        masks[:, i, :, top:bottom, left:] = True
    numbers = np.broadcast_to(np.arange(INSTANCES, dtype=np.int32), shape[:2])
    noise = np.random.default_rng(0).integers(0, 256, (args.batch, 1, *args.size, 3))
    arrays = dict(
        images=noise.astype(np.uint8),
        frame_valid=np.ones((args.batch, 1), bool),
        sizes=np.full((args.batch, 2), args.size, np.int32),
        masks=masks,
        boxes=np.zeros((*shape[:3], 4), np.float32),  # these systems do not read them
        present=np.ones(shape[:3], bool),
        labels=numbers,
        track_ids=numbers + 1,
        instance_valid=np.ones(shape[:2], bool),
    )
    return Batch(**{name: jnp.asarray(array) for name, array in arrays.items()})


def make_step(name: str, args: argparse.Namespace) -> Callable[[], object]:
    """Compiles one update of a config's system."""
    config = importlib.import_module(f"configs.{name}").get_config().to_dict()
    run = read_run(config | {"compute_dtype": args.dtype})
    system = parts.build_system(run)
    batch = jax.device_put(make_batch(args))
    variables = jax.jit(system.init)(jax.random.key(0), batch)
    optimizer = optimizers.build(
        run.optimizer, num_steps=run.num_steps, params=variables["params"]
    )
    opt_state = optimizer.transform.init(variables["params"])
    step = jnp.zeros((), jnp.int32)
    state = TrainState(step, dict(variables), opt_state, jax.random.key(1))
    update = make_update(system, optimizer, state=state, mesh=make_mesh())

    def call() -> None:
        nonlocal state
        state, metrics = update(state, batch)
        jax.block_until_ready((state.variables, metrics))

    call()
    return call


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["r50", "swint"])
    parser.add_argument("--batch", type=int, default=1, help="images")
    add_arguments(parser)
    args = parser.parse_args()
    print_machine(jax.devices()[0].device_kind)
    print(f"{args.batch} images of {args.size[0]} x {args.size[1]}, {args.dtype}")
    print("system           backbone  images/s  peer  ratio  (least - most)")
    for backbone in args.backbones:
        call = make_step(f"mask2former_vis_{backbone}", args)
        row = compare(
            call,
            args,
            what="train",
            network="mask2former",
            backbone=backbone,
            queries=100,
            batch=args.batch,
            instances=INSTANCES,
        )
        print_row(f"{'mask2former_vis':<16} {backbone:<8}", row, args.batch)


if __name__ == "__main__":
    main()

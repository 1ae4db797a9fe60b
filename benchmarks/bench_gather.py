"""Compiles an update with sharded parameters for TPU chips, without having any.

Run: pip install 'vis_jax[tpu]'
     JAX_PLATFORMS=cpu python -m benchmarks.bench_gather [--layers 12] [--width 4096]
         [--clips 64] [--topology v5e:2x4]

The system is a stack of square layers, and mesh.fsdp is the number of chips. Prints,
for each chip, the bytes of all parameters, of the state and the batch between two
updates, and of what the compiler plans beside them during an update: activations,
gradients and gathered parameters.
"""

import argparse
import os

import numpy as np

# Without a TPU, libtpu would wait for the metadata server of a Cloud TPU.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def stack(layers: int, width: int):
    """Makes a system of `layers` matrices [width, width]."""
    import jax.numpy as jnp

    from vis_jax.structures import LossAux, Window
    from vis_jax.systems.system import System

    def init(rng, batch):
        kernels = {f"layer{i}": jnp.ones((width, width)) for i in range(layers)}
        return {"params": kernels}

    def loss(variables, batch, rng):
        x = batch.images.astype(jnp.float32).mean((1, 2, 3))
        x = jnp.tile(x, (1, width // 3 + 1))[:, :width]
        for kernel in variables["params"].values():
            x = x + jnp.tanh(x @ kernel)
        return jnp.mean(x**2), LossAux({}, {}, {})

    def step(variables, state, clip):
        raise TypeError("this system is only trained")

    return System(init, loss, lambda clip: (), step, Window(None, None))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--clips", type=int, default=64, help="on each chip")
    parser.add_argument("--topology", default="v5e:2x4")
    args = parser.parse_args()
    for name, value in _NO_TPU.items():
        os.environ.setdefault(name, value)

    import jax
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    from vis_jax.training.dry_run import batch_shapes
    from vis_jax.training.initial import make_plan
    from vis_jax.training.run_config import RunSettings
    from vis_jax.training.sharding import AXES, MeshSettings, batch_sharding

    found = topologies.get_topology_desc(platform="tpu", topology_name=args.topology)
    chips = len(found.devices)
    grid = np.array(found.devices).reshape(1, chips)
    mesh = Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    config = RunSettings(num_steps=1, mesh=MeshSettings(fsdp=chips))
    place = batch_sharding(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        batch_shapes(B=args.clips * chips, T=1, M=1, H=32, W=32),
    )
    plan = make_plan(config, stack(args.layers, args.width), batch, mesh)
    memory = plan.update.lower(plan.like, batch).compile().memory_analysis()
    print(f"{args.topology}: {args.layers} layers of width {args.width}, MB on a chip")
    for name, size in {
        "all parameters": 4 * args.layers * args.width**2,
        "state and batch": memory.argument_size_in_bytes,
        "during an update": memory.temp_size_in_bytes,
    }.items():
        print(f"{name:<18}{size / 1e6:8.1f}")


if __name__ == "__main__":
    main()

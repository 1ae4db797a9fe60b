"""Runs updates on eight devices with several meshes; prints the results as JSON.

    python -m tests.training.mesh_run FOLDER

All meshes share a process, as JAX takes a second to start and fixes its devices then.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from tests.recipes import recipe
from tests.systems.contract import first_batch
from tests.training.toy_run import Recorder, evaluate
from tests.training.toy_system import CLIPS, SIDE, toy_batch, toy_config, toy_system
from vis_jax.params import flatten
from vis_jax.structures import Batch
from vis_jax.systems import SYSTEMS
from vis_jax.training.dry_run import batch_shapes
from vis_jax.training.evaluations import Evaluation
from vis_jax.training.loop import train
from vis_jax.training.sharding import (
    MeshSettings,
    batch_sharding,
    everywhere,
    make_mesh,
    param_sharding,
)
from vis_jax.training.simulate import compile_update, lower_update

MESHES: dict[str, dict] = {
    "data=8": {},
    "data=2,fsdp=4": {"data": 2, "fsdp": 4},
    "fsdp=8": {"fsdp": 8},
}


# With microbatches of one clip per device, and with an average of parameters.
PARTS = {"train.accumulate": 2, "train.ema": 0.9}


def toy(folder: Path, name: str, mesh: dict, *, clips: int = CLIPS, **changes) -> dict:
    """Runs the toy system with all arrays sharded where possible."""
    config = toy_config(mesh={**mesh, "least": 1}, **changes)
    recorder = Recorder()
    evaluated: list[dict] = []

    def batches(start: int) -> Iterator[dict]:
        return (toy_batch(number, clips=clips) for number in itertools.count(start))

    state = train(
        config, toy_system(features=8), batches, str(folder / name),
        evaluations=[Evaluation("", 0, lambda v, _: evaluated.append(v) or {})],
        writer=recorder,
    )  # fmt: skip
    kernel = state.evaluated["params"]["head"]["kernel"]
    np.testing.assert_array_equal(evaluated[0]["params"]["head"]["kernel"], kernel)
    stats = state.variables["batch_stats"]["norm"]
    return {
        "losses": recorder.losses,
        "kernel": np.asarray(kernel).tolist(),
        "mean": np.asarray(stats["mean"]).tolist(),
        "var": np.asarray(stats["var"]).tolist(),
        "shard": list(kernel.addressable_shards[0].data.shape),
    }


def detector(mesh_settings: MeshSettings) -> dict:
    """Returns loss and batch-norm statistics of YOLACT on one batch."""
    changes = {"data.batch_size": CLIPS, "data.loader": "numpy"}
    run = recipe("yolact_shapes", "debug", changes | {"model.backbone.norm": "batch"})
    system, batch = SYSTEMS[run.system].build(run), first_batch(run)
    shapes = dict(jax.eval_shape(system.init, jax.random.key(0), batch))
    rng = np.random.default_rng(0)
    values = jax.tree.map(
        lambda x: (1 + 0.1 * rng.normal(size=x.shape)).astype(x.dtype), shapes
    )
    mesh = make_mesh(mesh_settings)
    divided = param_sharding(values, mesh, mesh_settings)

    def loss(variables: dict, batch: Batch) -> tuple:
        return system.loss(everywhere(variables, mesh), batch, jax.random.key(1))

    places = (divided, batch_sharding(mesh))
    value, aux = jax.jit(loss, in_shardings=places)(values, batch)
    stats = flatten(aux.batch_stats)
    return {"loss": float(value)} | {
        k: np.asarray(x).tolist() for k, x in stats.items()
    }


def simulated(mesh: dict) -> dict:
    """Returns the memory of the toy system's update on one of eight devices."""
    config = toy_config(mesh={**mesh, "least": 1}, **{"train.ema": 0.9})
    batch = batch_shapes(B=2 * CLIPS, T=1, M=1, H=SIDE, W=SIDE)
    lowered = lower_update(config, toy_system(features=8), batch)
    found = compile_update(lowered)
    sent: dict[str, float] = {}
    for one in found.exchanged:
        sent[one.kind] = sent.get(one.kind, 0) + one.sent
    return {
        "stored": lowered.stored,
        "flops": lowered.flops,
        "arguments": found.arguments,
        "working": found.working,
        "estimated": lowered.working,
        "sent": sent,
    }


def main(folder: Path) -> None:
    report: dict = {name: toy(folder, name, mesh) for name, mesh in MESHES.items()}
    mesh = MESHES["data=2,fsdp=4"]
    report["parts"] = toy(folder, "parts", mesh, clips=2 * CLIPS, **PARTS)
    again = toy(folder, "fsdp=8", mesh)
    report["kept"] = again["kernel"] == report["fsdp=8"]["kernel"]
    report["from one"] = toy(folder, "one", mesh)
    report["detector"] = detector(MeshSettings(**mesh, least=64))
    report["simulated"] = simulated(mesh)
    evaluate(str(folder / "evaluation"))
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

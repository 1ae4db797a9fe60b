"""A system small enough to know by heart: one linear map from mean colour to a number.

The target of a clip is its height; the parameters are `head/kernel`, `head/bias` and
`norm/scale`; a collection "constants" never changes and "batch_stats" counts updates.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vis_jax.structures import Batch, LossAux
from vis_jax.systems.system import System

CLIPS = 8
SIDE = 6


def toy_system(*, features: int = 3, noise: float = 0.01) -> System:
    def init(rng, batch):
        del batch
        kernel = jax.random.normal(rng, (3, features))
        return {
            "params": {
                "head": {"kernel": kernel, "bias": jnp.zeros(features)},
                "norm": {"scale": jnp.ones(features)},
            },
            "constants": {"target_scale": jnp.full((), 0.1)},
            "batch_stats": {"updates": jnp.zeros(())},
        }

    def loss(variables, batch: Batch, rng):
        params = variables["params"]
        colour = batch.images.astype(jnp.float32).mean((1, 2, 3)) / 255.0
        colour = colour + noise * jax.random.normal(rng, colour.shape)
        hidden = (colour @ params["head"]["kernel"]) * params["norm"]["scale"][None]
        hidden = jnp.tanh(hidden + params["head"]["bias"][None])
        target = batch.sizes[:, :1] * variables["constants"]["target_scale"]
        terms = {
            "fit": jnp.mean((hidden - target) ** 2),
            "size": 0.01 * jnp.sum(params["head"]["kernel"] ** 2),
        }
        stats = {"updates": variables["batch_stats"]["updates"] + 1.0}
        return terms["fit"] + terms["size"], LossAux(terms, stats)

    return System(init, loss, start=tuple, step=lambda *unused: None)


def toy_batch(index: int, *, clips: int = CLIPS) -> dict[str, np.ndarray]:
    """Batch number `index`: one instance that fills each frame."""
    rng = np.random.default_rng(index)
    box = np.array([0, 0, SIDE, SIDE], np.float32)
    return {
        "images": rng.integers(0, 256, (clips, 1, SIDE, SIDE, 3), np.uint8),
        "frame_valid": np.ones((clips, 1), bool),
        "sizes": np.stack([np.full(clips, SIDE), np.full(clips, SIDE)], 1).astype("i4"),
        "masks": np.ones((clips, 1, 1, SIDE, SIDE), bool),
        "boxes": np.tile(box, (clips, 1, 1, 1)),
        "present": np.ones((clips, 1, 1), bool),
        "labels": np.zeros((clips, 1), np.int32),
        "track_ids": np.ones((clips, 1), np.int32),
        "instance_valid": np.ones((clips, 1), bool),
    }


def toy_batches(start: int, *, share: slice = slice(None)) -> Iterator[dict]:
    """Endless batches from number `start` on; `share` is one process's clips."""
    while True:
        yield {name: array[share] for name, array in toy_batch(start).items()}
        start += 1


def toy_config(**changes) -> ConfigDict:
    config = ConfigDict({"seed": 3, "num_steps": 6, "init_from": None})
    config.train = {
        "log_every": 1,
        "checkpoint_every": 2,
        "keep": 2,
        "image_every": 0,
        "eval_every": 0,
    }
    config.optimizer = {
        "learning_rate": 0.01,
        "weight_decay": 0.05,
        "clip_norm": 0.1,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "warmup_steps": 0,
        "schedule": "step",
        "decay_at": (4,),
        "rates": (("head/.*", 0.1), (".*", 1.0)),
        "decays": ((".*norm.*", 0.0), (".*", 1.0)),
    }
    config.update_from_flattened_dict(changes)
    return config

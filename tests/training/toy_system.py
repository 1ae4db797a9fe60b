"""Toy system: one linear map from mean colour to a number.

The target of a clip is its height. Parameters are `head/kernel`, `head/bias`,
`norm/scale` and `norm/bias`; a collection "constants" never changes; "batch_stats"
counts updates and has batch-norm statistics; a note has the number of dark clips.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.layers.norm import BatchNorm
from vis_jax.settings import read_settings
from vis_jax.structures import Batch, Clip, LossAux, Predictions, Window
from vis_jax.systems.system import System
from vis_jax.training.run_config import LoopSettings

CLIPS = 8
SIDE = 6


def toy_system(*, features: int = 3, noise: float = 0.01) -> System:
    def init(rng, batch):
        del batch
        kernel = jax.random.normal(rng, (3, features))
        return {
            "params": {
                "head": {"kernel": kernel, "bias": jnp.zeros(features)},
                "norm": {"scale": jnp.ones(features), "bias": jnp.zeros(features)},
            },
            "constants": {"target_scale": jnp.full((), 0.1)},
            "batch_stats": {
                "updates": jnp.zeros(()),
                "norm": {"mean": jnp.zeros(features), "var": jnp.ones(features)},
            },
        }

    def loss(variables, batch: Batch, rng):
        params, stats = variables["params"], variables["batch_stats"]
        colour = batch.images.astype(jnp.float32).mean((1, 2, 3)) / 255.0
        colour = colour + noise * jax.random.normal(rng, colour.shape)
        hidden, norm = BatchNorm().apply(
            {"params": params["norm"], "batch_stats": stats["norm"]},
            colour @ params["head"]["kernel"],
            train=True,
            mutable=["batch_stats"],
        )
        hidden = jnp.tanh(hidden + params["head"]["bias"][None])
        target = batch.sizes[:, :1] * variables["constants"]["target_scale"]
        terms = {
            "fit": jnp.mean((hidden - target) ** 2),
            "size": 0.01 * jnp.sum(params["head"]["kernel"] ** 2),
        }
        stats = {"updates": stats["updates"] + 1.0, "norm": norm["batch_stats"]}
        notes = {"dark": jnp.sum(colour.mean(1) < 0.5).astype(jnp.float32)}
        return terms["fit"] + terms["size"], LossAux(terms, stats, notes)

    def step(variables, state, clip: Clip):
        """Returns one track with the video's mean colour and its light pixels."""
        head = variables["params"]["head"]
        frames = clip.images.astype(jnp.float32) / 255.0
        colour = frames.mean((0, 1, 2))
        found = Predictions(
            class_probs=jax.nn.sigmoid(colour @ head["kernel"] + head["bias"])[None],
            track_ids=jnp.ones(1, jnp.int32),
            valid=jnp.ones(1, bool),
            slots=jnp.zeros((frames.shape[0], 1), jnp.int32),
            mask_logits=frames.mean(-1)[:, None] - 0.5,
        )
        return state, found

    window = Window(None, None, buckets=(8,))
    return System(init, loss, lambda clip: (), step, window)


def toy_batch(index: int, *, clips: int = CLIPS) -> dict[str, np.ndarray]:
    """Makes batch `index`: one instance that fills each frame."""
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
    """Yields endless batches from `start` on; `share` is one process's clips."""
    while True:
        yield {name: array[share] for name, array in toy_batch(start).items()}
        start += 1


def toy_config(**changes) -> LoopSettings:
    """Returns settings with changes by path, such as `**{"train.keep": 1}`."""
    optimizer = dict(
        learning_rate=0.01, clip_norm=0.1, decay_at=(4,),
        rates=(("head/.*", 0.1), (".*", 1.0)),
        decays=((".*norm.*", 0.0), (".*", 1.0)),
    )  # fmt: skip
    train = dict(log_every=1, checkpoint_every=2, keep=2, image_every=0)
    config = dict(seed=3, num_steps=6, train=train, optimizer=optimizer)
    for path, value in changes.items():
        part, _, name = path.rpartition(".")
        (config[part] if part else config)[name] = value
    return read_settings(LoopSettings, config)

"""IFR of published size, fine-tuned on a folder of videos and its classes.

Results: docs/results.md#real-videos.

Run:   python -m vis_jax.main --config configs/finetune_folder.py --workdir runs/mine \\
           --config.data.root=/data/videos --config.init_from=weights/coco_r50
Smoke: python -m vis_jax.main --config configs/finetune_folder.py:debug \\
           --workdir runs/debug --config.data.root=/data/videos (any CPU)

`init_from` is any checkpoint of IFR with this backbone: COCO weights from `convert`
(docs/checkpoints.md), or a run on YouTube-VIS. The layer that depends on the classes is
new. Arguments: those of configs/ifr.py, and `steps`, with four clips each. A fifth of
the videos is held out and evaluated; see configs/ifr_folder.py. The schedule is a guess
for a few dozen videos, not measured.
"""

from ml_collections import ConfigDict

from configs import common, ifr


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config."""
    config = ifr.full_size(options)
    config.num_steps = options.steps
    config.init_from = "weights/coco_r50"
    config.init_fresh = ("decoder/heads/class_embed/.*",)
    config.data.batch_size = 4
    config.optimizer.decay_at = (options.steps * 3 // 4,)
    return config


get_config = common.recipes(
    full_size,
    backbone="r50",
    decoder="ifr",
    dataset="folder",
    frames=2,
    queries=100,
    steps=1_000,
)()

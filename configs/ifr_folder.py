"""IFR, small, from scratch on a folder of videos. Results: docs/results.md#real-videos.

Run:   python -m vis_jax.main --config configs/ifr_folder.py --workdir runs/folder \\
           --config.data.root=/data/videos --config.data.held_out='("dog","boat")'
Smoke: the same with --config configs/ifr_folder.py:debug (any CPU, about a minute)

The folder has JPEGImages/ and instances.json in the YouTube-VIS format; classes come
from the file. For a few dozen videos, such as one's own, and a CPU.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(arg, steps=5_000, debug=False)
    config = ConfigDict(dict(system="ifr", seed=0, num_steps=options.steps))
    config.compute_dtype = "float32"
    config.init_from = ""
    config.init_fresh = ()  # regexes of paths that stay random
    config.data = dict(
        name="folder", root="", split="train", held_out=(), loader="tf",
        frames=2, frame_range=8, short_side=(96,), long_side=192, canvas=(96, 192),
        instances=8, crop=None, flip=0.5, colour=0.1, batch_size=8,
        shapes=dict(height=96, width=160, length=12, difficulty="easy", num_videos=100),
    )  # fmt: skip
    config.test = dict(
        split="train", videos=0, short_side=96, long_side=192, top=10, chunk=8,
        frame_buckets=(32, 64),
        **common.INFERENCE,
    )  # fmt: skip
    config.model = dict(
        num_classes=0,  # as many as the folder has categories
        backbone=dict(name="resnet", variant="thin", norm="group"),
        pixel_decoder=dict(dim=64, layers=1, heads=4, points=4, mlp_dim=128),
        mask_decoder=dict(
            kind="ifr", dim=64, layers=3, heads=4, queries=16, mlp_dim=128
        ),
        frame_queries=dict(
            frame_ffn=True, type_embed=False, mask_clip_group=True,
            temporal_position=False, remat=False,
        ),
    )  # fmt: skip
    config.loss = dict(
        kind="focal", label=2.0, mask=5.0, dice=5.0, points=192, cross_frame=0.3,
        no_object=0.1,
    )  # fmt: skip
    config.optimizer = dict(
        learning_rate=1e-3, weight_decay=0.05, clip_norm=0.1, betas=(0.9, 0.999),
        eps=1e-8, warmup_steps=100, schedule="cosine", decay_at=(),
        rates=((".*", 1.0),), decays=common.NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    config.train = dict(
        log_every=50, checkpoint_every=500, keep=2, image_every=0, eval_every=0
    )
    return common.shrink(config) if options.debug else config

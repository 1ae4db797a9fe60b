"""CondInst, small, from scratch on moving shapes.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/condinst_shapes.py \\
           --workdir runs/condinst_shapes
Smoke: the same with --config configs/condinst_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. `--config.test.tracker` of `evaluate` is
iou, deep_sort or seq; `compare` runs them all on the same detections.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(arg, difficulty="easy", steps=3_000, debug=False)
    config = ConfigDict(dict(system="condinst", num_steps=options.steps))
    config.data = dict(
        name="moving_shapes", frames=1, short_side=(96,), canvas=(96, 160),
        instances=10, colour=0.1, batch_size=16,
        shapes=dict(length=12, difficulty=options.difficulty, num_videos=20_000),
    )  # fmt: skip
    config.model = dict(
        num_classes=common.NUM_CLASSES["moving_shapes"],
        backbone=dict(name="resnet", variant="thin", norm="group"),
        fpn=dict(dim=64),
        head=dict(convs=2),
        masks=dict(dim=32, convs=2),
    )
    # Objects are 13 to 40 pixels long: the two finest levels stand for them.
    config.loss = dict(ranges=(24.0, 48.0, 96.0, 192.0), positives=64)
    config.test = dict(
        split="val", videos=50, short_side=96, top=120, chunk=12,
        frame_buckets=(12, 24, 36), tracks=120,
    )  # fmt: skip
    config.optimizer = dict(
        learning_rate=1e-3, clip_norm=1.0, warmup_steps=100,
        schedule="cosine", decays=common.NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    config.train = dict(keep=2, image_every=500)
    return common.shrink(config) if options.debug else config

"""YOLACT, small, from scratch on moving shapes.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/yolact_shapes.py \\
           --workdir runs/yolact_shapes
Smoke: the same with --config configs/yolact_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. `--config.test.tracker` of `evaluate` is
iou, deep_sort or seq; `compare` runs them all on the same detections. With `track` the
track head alone is trained, for mask_track, on a trained YOLACT:
--config.init_from=runs/yolact_shapes.
"""

from ml_collections import ConfigDict

from configs import common, yolact


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(
        arg, difficulty="easy", steps=3_000, track=False, debug=False
    )
    config = ConfigDict(dict(system="yolact", num_steps=options.steps))
    config.data = dict(
        name="moving_shapes", frames=1, short_side=(96,), canvas=(96, 160),
        instances=10, colour=0.1, batch_size=16,
        shapes=dict(length=12, difficulty=options.difficulty, num_videos=20_000),
    )  # fmt: skip
    config.model = dict(
        num_classes=common.NUM_CLASSES["moving_shapes"],
        backbone=dict(name="resnet", variant="thin", norm="group"),
        fpn=dict(dim=64),
        # 1, 1/2 and 2 in pixels, and sides of nearly as many: objects have 13 to 40.
        priors=dict(
            sides=(15.0, 30.0, 60.0, 120.0, 240.0), ratios=(0.6, 0.3, 1.2),
            divisor=124.0, image=(96, 160),
        ),
        prototypes=16,
        dropout=0.0,
    )  # fmt: skip
    config.loss = dict(masks=50)
    config.test = dict(
        split="val", videos=50, short_side=96, top=120, chunk=12,
        frame_buckets=(12, 24, 36), tracks=120,
    )  # fmt: skip
    config.optimizer = dict(
        learning_rate=1e-3, clip_norm=1.0, warmup_steps=100,
        schedule="cosine", decays=common.NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    config.train = dict(keep=2, image_every=500)
    if options.track:
        yolact.add_track_head(config, width=128)
        # Any two frames of a video.
        config.data.update(frames=2, frame_range=12, batch_size=8)
    return common.shrink(config) if options.debug else config

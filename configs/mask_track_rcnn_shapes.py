"""MaskTrack R-CNN, small, from scratch on moving shapes.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/mask_track_rcnn_shapes.py \\
           --workdir runs/mask_track_rcnn_shapes
Smoke: the same with --config configs/mask_track_rcnn_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. `--config.test.tracker` of `evaluate` is
mask_track, iou, deep_sort or seq; `compare` runs them all on the same detections.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(arg, difficulty="hard", steps=3_000, debug=False)
    config = ConfigDict(dict(system="mask_track_rcnn", num_steps=options.steps))
    config.data = dict(
        # Any two frames of a video.
        name="moving_shapes", frame_range=12, short_side=(96,), canvas=(96, 160),
        instances=10, colour=0.1, batch_size=8,
        shapes=dict(length=12, difficulty=options.difficulty, num_videos=20_000),
    )  # fmt: skip
    config.model = dict(
        num_classes=common.NUM_CLASSES["moving_shapes"],
        backbone=dict(name="resnet", variant="thin", norm="group"),
        fpn=dict(dim=64),
        rpn=dict(dim=64, proposals=60, scale=4.0),
        regions=dict(sampled=40, positives=10),
        box_head=dict(width=128),
        mask_head=dict(dim=32, convs=2),
        track_head=dict(width=128),
    )
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

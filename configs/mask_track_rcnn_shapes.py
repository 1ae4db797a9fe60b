"""MaskTrack R-CNN, small, from scratch on moving shapes.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/mask_track_rcnn_shapes.py \\
           --workdir runs/mask_track_rcnn_shapes
Smoke: the same with --config configs/mask_track_rcnn_shapes.py:debug (any CPU)

`difficulty` is easy, medium or hard. `--config.test.tracker` of `evaluate` is
mask_track, iou, deep_sort or seq; `compare` runs them all on the same detections.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(arg, difficulty="hard", steps=3_000, debug=False)
    config = ConfigDict(dict(system="mask_track_rcnn", seed=0))
    config.num_steps = options.steps
    config.compute_dtype = "float32"
    config.init_from, config.init_fresh = "", ()
    config.data = dict(
        name="moving_shapes", root="", split="train", held_out=(), loader="tf",
        # Any two frames of a video.
        frames=2, frame_range=12, short_side=(96,), long_side=1333,
        canvas=(96, 160), instances=10, crop=None, flip=0.5, colour=0.1, batch_size=8,
        shapes=dict(
            height=96, width=160, length=12, difficulty=options.difficulty,
            num_videos=20_000,
        ),
    )  # fmt: skip
    config.test = dict(
        split="val", videos=50, short_side=96, long_side=1333, top=120, chunk=12,
        frame_buckets=(12, 24, 36), score=0.05, nms=0.5, objects=10, tracks=120,
        tracker="mask_track", trackers=common.TRACKERS,
        **common.INFERENCE,
    )  # fmt: skip
    config.model = dict(
        num_classes=common.NUM_CLASSES["moving_shapes"],
        backbone=dict(name="resnet", variant="thin", norm="group"),
        fpn=dict(dim=64),
        rpn=dict(dim=64, sampled=64, proposals=60, scale=4.0),
        regions=dict(sampled=40, positives=10),
        box_head=dict(width=128),
        mask_head=dict(dim=32, convs=2),
        track_head=dict(width=128, positive=0.5),
    )
    config.loss = dict(
        rpn_class=1.0, rpn_box=1.0, box_class=1.0, box=1.0, mask=1.0, track=1.0
    )
    config.optimizer = dict(
        learning_rate=1e-3, weight_decay=0.05, clip_norm=1.0, betas=(0.9, 0.999),
        eps=1e-8, warmup_steps=100, schedule="cosine", decay_at=(),
        rates=((".*", 1.0),),
        decays=common.NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    config.train = dict(
        log_every=20, checkpoint_every=500, keep=2, image_every=500, eval_every=0
    )
    return common.shrink(config) if options.debug else config

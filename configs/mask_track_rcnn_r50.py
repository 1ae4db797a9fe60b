"""MaskTrack R-CNN, ResNet-50. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask_track_rcnn_r50.py \\
           --workdir runs/mask_track_rcnn_r50 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_mask_rcnn_r50
Smoke: the same with --config configs/mask_track_rcnn_r50.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes. `--config.test.tracker=..` links the same detections by a baseline of the
paper: iou, deep_sort or seq.
Paper: 30.3 AP on YouTube-VIS 2019, where runs vary between 28 and 31; 10.8 on OVIS,
from the authors of OVIS.
Memory: about 0.7 GB and 0.9 GB for each pair on a device, an estimate of --dry_run.

Deviation: a clip is a random pair of frames of the next video; the authors' epoch takes
every frame once as the key frame. The schedule has as many pairs as theirs.
Deviation: portrait videos are made to fit the landscape canvas of training; the authors
turn the canvas instead.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(arg, dataset="ytvis2019", frames=2, debug=False)
    classes = common.num_classes(options.dataset)
    ovis = options.dataset == "ovis"  # crowded; as the authors of OVIS train it
    config = ConfigDict(dict(system="mask_track_rcnn", seed=0))
    config.compute_dtype = "bfloat16"
    config.init_from = ""  # a checkpoint; the paper starts from COCO Mask R-CNN
    config.init_fresh = ()  # regexes of paths that stay random
    # The reference is any other frame; in the longer videos of OVIS one nearby.
    config.data = common.clips(
        options, frame_range=5 if ovis else 1_000, short_side=(360,)
    )
    config.data.update(long_side=640, batch_size=16 if ovis else 32)
    epoch = common.TRAIN_FRAMES[options.dataset] // config.data.batch_size
    config.num_steps = 12 * epoch
    config.test = dict(
        split=common.valid_split(options.dataset), videos=0, short_side=360,
        long_side=640, top=100, chunk=8,
        frame_buckets=(8, 16, 24, 36, 48, 64, 96),
        # Detections: least score, NMS, most in a frame; most tracks in a video.
        score=0.05, nms=0.5, objects=100 if ovis else 10, tracks=1_000 if ovis else 360,
        tracker="mask_track", trackers=common.TRACKERS,
        **common.INFERENCE,
    )  # fmt: skip
    config.model = dict(
        num_classes=classes,
        backbone=dict(name="resnet", variant="50", norm="frozen_stats", remat=False),
        fpn=dict(dim=256),
        # Anchors of `scale` strides a side.
        rpn=dict(
            dim=256, sampled=256 if ovis else 64, proposals=1_000 if ovis else 200,
            scale=8.0,
        ),
        regions=dict(sampled=512 if ovis else 128, positives=128 if ovis else 32),
        box_head=dict(width=1024),
        mask_head=dict(dim=256, convs=4),
        # IoU with its object from which a region trains it; 0.7 in the text.
        track_head=dict(width=1024, positive=0.5),
    )  # fmt: skip
    config.loss = dict(
        rpn_class=1.0, rpn_box=1.0, box_class=1.0, box=1.0, mask=1.0, track=1.0
    )
    config.optimizer = dict(
        # The text has a rate of 0.05, the released code and its authors 0.005.
        kind="sgd", learning_rate=0.005, momentum=0.9, weight_decay=1e-4,
        clip_norm=35.0, warmup_steps=500, warmup_factor=1 / 3, schedule="step",
        decay_at=(8 * epoch, 11 * epoch),
        # (path pattern, multiplier): the first match wins, every parameter must match.
        rates=(("backbone/(stem|res2_).*", 0.0), (".*", 1.0)),
        decays=((".*", 1.0),),
    )  # fmt: skip
    config.train = dict(
        log_every=20, checkpoint_every=500, keep=3, image_every=1_000, eval_every=0
    )
    return common.shrink(config) if options.debug else config

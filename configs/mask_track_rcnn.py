"""MaskTrack R-CNN with a ResNet, as published.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask_track_rcnn.py:backbone=r101 \\
           --workdir runs/mask_track_rcnn --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_mask_rcnn_r101
Smoke: the same with --config configs/mask_track_rcnn.py:debug (any CPU)

`backbone` is r50 or r101; `dataset` and `frames` as for configs/ifr.py. The files
mask_track_rcnn_r50.py and mask_track_rcnn_r101.py have the papers' numbers.

Deviation: a clip is a random pair of frames of the next video; the authors use every
frame of an epoch once as the key frame. The schedule has as many pairs as theirs.
Deviation: portrait videos are scaled down to fit the landscape canvas of training; the
authors rotate the canvas instead.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {"r50": "50", "r101": "101"}


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config, for `backbone`, `dataset` and `frames`."""
    common.check_choice("backbone", options.backbone, VARIANTS)
    classes = common.num_classes(options.dataset)
    ovis = options.dataset == "ovis"  # has its own settings, from the authors of OVIS
    config = ConfigDict(dict(system="mask_track_rcnn", compute_dtype="bfloat16"))
    # The reference is any other frame, or a nearby one in the longer videos of OVIS.
    config.data = common.clips(
        options, frame_range=5 if ovis else 1_000, short_side=(360,)
    )
    config.data.update(long_side=640, batch_size=16 if ovis else 32)
    epoch = common.TRAIN_FRAMES[options.dataset] // config.data.batch_size
    config.num_steps = 12 * epoch
    config.model = dict(
        num_classes=classes,
        backbone=dict(name="resnet", variant=VARIANTS[options.backbone]),
    )
    config.test = dict(
        split=common.valid_split(options.dataset), long_side=640, top=100
    )
    if ovis:
        config.model.rpn = dict(sampled=256, proposals=1_000)
        config.model.regions = dict(sampled=512, positives=128)
        config.test.update(objects=100, tracks=1_000)
    config.optimizer = dict(
        # The text has a rate of 0.05, the released code and its authors 0.005.
        kind="sgd", learning_rate=0.005, weight_decay=1e-4, clip_norm=35.0,
        warmup_steps=500, warmup_factor=1 / 3, decay_at=(8 * epoch, 11 * epoch),
        rates=(("backbone/(stem|res2_).*", 0.0), (".*", 1.0)),
    )  # fmt: skip
    return config


recipe = common.recipes(full_size, backbone="r50", dataset="ytvis2019", frames=2)
get_config = recipe()

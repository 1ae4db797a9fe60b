"""Hybrid Task Cascade with a ResNet or ResNeXt on videos.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/cascade.py:backbone=x101,deform,track \\
           --workdir runs/cascade --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_htc_x101_dcn
Smoke: the same with --config configs/cascade.py:debug (any CPU)

`backbone` is r50, r101 or x101 (ResNeXt-101 64x4d); with `deform` the 3x3 convolutions
of its last three stages are deformable. `dataset` and `frames` as for configs/ifr.py.
With `track` the head of MaskTrack R-CNN is also trained, on pairs of frames, and links
the detections: this is "MaskTrack R-CNN*" of the MaskProp paper, with its schedule.
`dataset=coco` trains HTC on images, for 20 epochs with a batch of 16. OpenImages can be
added as stills if it is converted to the layout of COCO: see docs/data.md.
cascade_r50.py is the variant r50.

Deviation: the batch is a quarter of the paper's 64 pairs, and so is the learning rate.
Deviation: an epoch of the paper uses every frame once as the key frame; here clips are
drawn at random, as many as in the paper.
Deviation: semantic labels are rasterised from the objects, with everything else as
background; HTC uses those of COCO-stuff, and twice the weight.
Deviation: the heads are trained on the best 1,000 proposals, as at test time;
mmdetection uses 2,000.
Deviation: portrait videos and images are scaled down to fit the landscape canvas of
training.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {"r50": "50", "r101": "101", "x101": "x101_64x4d"}
FROZEN = ("backbone/(stem|res2_).*", 0.0)
_GAP = 25  # frames between those of a pair, at most


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config; `frames` is 0 for 1, or 2 with `track`."""
    common.check_choice("backbone", options.backbone, VARIANTS)
    options.frames = options.frames or (2 if options.track else 1)
    config = ConfigDict(dict(system="cascade", compute_dtype="bfloat16"))
    config.data = common.clips(
        options, frame_range=_GAP, short_side=(400, 480, 560, 640, 720, 800)
    )
    config.data.update(long_side=1333, canvas=(800, 1344), batch_size=16)
    epoch = common.TRAIN_FRAMES[options.dataset] // config.data.batch_size
    config.num_steps = 20 * epoch
    config.model = dict(
        num_classes=common.num_classes(options.dataset),
        backbone=dict(name="resnet", variant=VARIANTS[options.backbone]),
        rpn=dict(sampled=256, proposals=1_000),
        regions=dict(sampled=512, positives=128),
    )
    config.model.backbone.remat = options.deform or options.backbone == "x101"
    if options.deform:
        config.model.backbone.deform_stages = (3, 4, 5)
    config.test = dict(
        split=common.valid_split(options.dataset), short_side=800, long_side=1333,
        score=0.1, objects=20, top=100,
    )  # fmt: skip
    if options.dataset == "ovis":
        config.test.update(objects=50, tracks=1_000)
    config.optimizer = dict(
        kind="sgd", learning_rate=0.002, weight_decay=1e-4, clip_norm=35.0,
        warmup_steps=500, warmup_factor=1 / 3, decay_at=(16 * epoch, 19 * epoch),
        rates=(FROZEN, (".*", 1.0)),
    )  # fmt: skip
    if options.dataset == "coco":
        config.data.update(short_side=(800,))
        config.test.update(score=0.001, objects=100)
        config.optimizer.learning_rate = 0.02
    if options.track:
        config.model.track_head = dict(width=1_024)
        config.test.tracker = "mask_track"
    return config


recipe = common.recipes(
    full_size, backbone="r50", deform=False, dataset="ytvis2019", track=False, frames=0
)
get_config = recipe()

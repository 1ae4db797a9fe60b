"""YOLACT with a ResNet on videos: the detector of RGNNVIS.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/yolact.py:backbone=r101 \\
           --workdir runs/yolact --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_yolact_r101
Smoke: the same with --config configs/yolact.py:debug (any CPU)

`backbone` is r50 or r101; `dataset` as for configs/ifr.py. With `dataset=coco` the
priors, the image size and NMS are those of YOLACT on COCO, as for its released weights.
With `track` the track head of MaskTrack R-CNN is trained on pairs of frames, on top of
a frozen YOLACT (--config.init_from=runs/yolact), and `mask_track` links the detections.
The files yolact_r50.py and yolact_r101.py are these variants.

Deviation: the paper adds OpenImages to the videos, and divides the rate by 5.
Deviation: in the paper (table 9), the rule of MaskTrack R-CNN compares appearance
features of RGNNVIS's association network, which is a setting of that system
(`model.graph.decide`); here it has its own head. The paper does not describe its
training: it has as many updates as RGNNVIS, on pairs.
Deviation: YOLACT stretches the images of COCO to 550 x 550, in training, too.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {"r50": "50", "r101": "101"}
_CANVAS = (480, 864)
_EPOCH = 7_468  # frames: four of each of the 1,867 videos that the paper trains on


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config; `frames` is 0 for 1, or 2 with `track`."""
    common.check_choice("backbone", options.backbone, VARIANTS)
    options.frames = options.frames or (2 if options.track else 1)
    classes = common.num_classes(options.dataset)
    config = ConfigDict(dict(system="yolact", compute_dtype="bfloat16"))
    # A window of 720 x 1280 frames, scaled by 0.475 to 1.
    config.data = common.clips(options, frame_range=20, short_side=(720,))
    config.data.update(canvas=_CANVAS, zoom=(0.475, 1.0), batch_size=8)
    epoch = _EPOCH // config.data.batch_size
    config.num_steps = 120 * epoch
    config.model = dict(
        num_classes=classes,
        backbone=dict(name="resnet", variant=VARIANTS[options.backbone]),
    )
    config.test = dict(
        split=common.valid_split(options.dataset), size=_CANVAS, top=100, score=0.03,
    )  # fmt: skip
    config.optimizer = dict(
        kind="adam", learning_rate=5e-5, weight_decay=1e-4,
        decay_at=(60 * epoch, 90 * epoch),
    )  # fmt: skip
    if options.dataset == "coco":
        config.model.priors = dict(
            ratios=(1.0, 0.5, 2.0), divisor=550.0, square=True, image=(550, 550)
        )
        config.data.update(short_side=(550,), canvas=(576, 576), zoom=None)
        config.test.update(
            size=(550, 550), score=0.05, across_classes=False, objects=100
        )
    if options.track:
        common.add_track_head(config, width=1_024)
        config.num_steps = 150 * (_EPOCH // 4 // config.data.batch_size)
        config.optimizer.update(learning_rate=2e-4, decay_at=())
    return config


recipe = common.recipes(
    full_size, backbone="r50", dataset="ytvis2019", track=False, frames=0
)
get_config = recipe()

"""CondInst with a ResNet on videos: the image model of IAI.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/condinst.py:backbone=r101 \\
           --workdir runs/condinst --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_condinst_r101
Smoke: the same with --config configs/condinst.py:debug (any CPU)

`backbone` is r50 or r101; `dataset` and `frames` as for configs/ifr.py. The schedule is
that of IAI, whose clips have five frames; here frames are independent images. With
`dataset=coco` it is that of CondInst on COCO, 90,000 updates of 16 images. With `track`
only a track head for mask_track is trained, on top of a frozen CondInst:
--config.init_from=runs/condinst. The files condinst_r50.py and condinst_r101.py are
these variants.

Deviation: the paper's Table 6 has a track head that the paper does not describe.

Deviation: portrait videos and images are scaled down to fit the landscape canvas of
training.
Deviation: on COCO, the authors apply NMS within each class.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {"r50": "50", "r101": "101"}
# Training videos; those of YouTube-VIS 2022 are those of 2021.
_VIDEOS = {"ytvis2019": 2_238, "ytvis2021": 2_985, "ytvis2022": 2_985, "ovis": 607}
FROZEN = ("backbone/(stem|res2_).*", 0.0)


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config; `frames` 0: 5, 1 on COCO, 2 with `track`."""
    common.check_choice("backbone", options.backbone, VARIANTS)
    alone = 1 if options.dataset == "coco" else 5
    options.frames = options.frames or (2 if options.track else alone)
    config = ConfigDict(dict(system="condinst", compute_dtype="bfloat16"))
    config.data = common.clips(options, frame_range=10, short_side=(360,))
    config.data.update(long_side=640, batch_size=16)
    epoch = updates_per_epoch(options.dataset, config.data.batch_size)
    config.num_steps = 12 * epoch
    config.model = dict(
        num_classes=common.num_classes(options.dataset),
        backbone=dict(name="resnet", variant=VARIANTS[options.backbone]),
        pixels="vgg",
    )
    config.test = dict(
        split=common.valid_split(options.dataset), long_side=640, top=100
    )
    if options.dataset == "ovis":
        config.test.update(objects=50, tracks=1_000)
    config.optimizer = dict(
        learning_rate=1e-4, weight_decay=1e-4, warmup_steps=500, warmup_factor=0.001,
        decay_at=(8 * epoch, 11 * epoch),
        rates=(FROZEN, ("backbone/.*", 0.1), (".*", 1.0)),
        decays=(("backbone/.*", 0.9), (".*", 1.0)),
    )  # fmt: skip
    if options.dataset == "coco":
        _on_coco(config)
    if options.track:
        common.add_track_head(config, width=256)
    return config


def updates_per_epoch(dataset: str, batch_size: int) -> int:
    """Returns the updates per epoch of IAI, which has five clips per training video.

    A data set of unknown size counts as YouTube-VIS 2019.
    """
    return 5 * _VIDEOS.get(dataset, _VIDEOS["ytvis2019"]) // batch_size


def _on_coco(config: ConfigDict) -> None:
    """Sets the schedule of CondInst on COCO."""
    config.num_steps = 90_000
    config.data.update(
        short_side=(640, 672, 704, 736, 768, 800), long_side=1333,
        canvas=(800, 1344),
    )  # fmt: skip
    config.test.update(
        short_side=800, long_side=1333, objects=100, candidates=1_000, nms=0.6
    )
    config.optimizer = dict(
        kind="sgd", learning_rate=0.01, weight_decay=1e-4, warmup_steps=1_000,
        warmup_factor=0.001, decay_at=(60_000, 80_000),
        rates=(FROZEN, (".*", 1.0)),
    )  # fmt: skip


recipe = common.recipes(
    full_size, backbone="r50", dataset="ytvis2019", track=False, frames=0
)
get_config = recipe()

"""IFR and its baseline Mask2Former-VIS with any backbone, as published.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/ifr.py:backbone=swins \\
           --workdir runs/ifr --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/ifr.py:debug (any CPU, about a minute)

`backbone` is r50, r101, swint, swins, swinb or swinl; `decoder` is ifr, or m2f_vis for
the baseline; `dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from
its file) or moving_shapes; `frames` is the number of frames per clip; `queries` is
their number: of COCO weights with more, the first ones are used. The files ifr_*.py and
mask2former_vis_*.py are the published models, with the papers' numbers.
"""

from ml_collections import ConfigDict

from configs import common

BACKBONES = {
    "r50": dict(name="resnet", variant="50"),
    "r101": dict(name="resnet", variant="101"),
    "swint": dict(name="swin", variant="tiny", window=7),
    "swins": dict(name="swin", variant="small", window=7),
    "swinb": dict(name="swin", variant="base", window=12),
    "swinl": dict(name="swin", variant="large", window=12),
}


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config."""
    long = options.dataset != "ytvis2019"  # 2021 trains longer; OVIS as 2021
    common.check_choice("backbone", options.backbone, BACKBONES)
    common.check_choice("decoder", options.decoder, ("ifr", "m2f_vis"))
    ours, resnet = options.decoder == "ifr", options.backbone.startswith("r")
    config = ConfigDict(dict(system="ifr", compute_dtype="bfloat16"))
    config.num_steps = 8_000 if long else 6_000
    config.data = common.clips(options, frame_range=20, short_side=(360, 480))
    config.model = dict(
        num_classes=common.num_classes(options.dataset),
        backbone=BACKBONES[options.backbone],
        mask_decoder=dict(kind=options.decoder, queries=options.queries),
    )
    if ours:
        config.model.mask_decoder.remat = options.frames > 2
    config.loss = dict(kind="focal" if ours else "ce")
    config.test = dict(
        split=common.valid_split(options.dataset), short_side=360 if resnet else 480
    )
    config.optimizer = dict(
        clip_norm=0.01, decay_at=(5_500,) if long else (4_000,),
        rates=(("backbone/.*", 0.1), (".*", 1.0)),
        decays=common.NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    return config


recipe = common.recipes(
    full_size, backbone="r50", decoder="ifr", dataset="ytvis2019", frames=2, queries=100
)
get_config = recipe()

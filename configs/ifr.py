"""IFR and its baseline Mask2Former-VIS with any backbone, as published.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/ifr.py:backbone=swins \\
           --workdir runs/ifr --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/ifr.py:debug (any CPU, about a minute)

`backbone` is r50, r101, swint, swins, swinb or swinl; `decoder` is ifr, or m2f_vis for
the baseline; `dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from
its file) or moving_shapes; `frames` of a clip; `queries`, of which COCO weights with
more give their first. The files ifr_*.py and mask2former_vis_*.py name the published
models, with the papers' numbers.
"""

from collections.abc import Callable

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


def recipe(**given: str | int) -> Callable[[str | None], ConfigDict]:
    """`get_config` of a recipe with other defaults of the string argument."""
    defaults: dict[str, str | int] = dict(
        backbone="r50", decoder="ifr", dataset="ytvis2019", frames=2, queries=100,
        debug=False,
    )  # fmt: skip

    def get_config(arg: str | None = None) -> ConfigDict:
        """The config; `arg` is what follows the colon of --config."""
        return _config(common.parse_arg(arg, **{**defaults, **given}))

    return get_config


get_config = recipe()


def _config(options: ConfigDict) -> ConfigDict:
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
    return common.shrink(config) if options.debug else config

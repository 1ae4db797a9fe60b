"""IFR on Mask2Former-VIS, Swin-T. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/ifr_swint.py \\
           --workdir runs/ifr_swint --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/ifr_swint.py:debug (any CPU, a minute)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes.
Paper: 52.8 AP on YouTube-VIS 2019, 47.4 on 2021, from COCO weights.
Memory: an estimated 25 GB on each device with 2 clips of 2 frames (`--dry_run`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(arg, dataset="ytvis2019", frames=2, debug=False)
    long = options.dataset != "ytvis2019"  # 2021 trains longer; OVIS as 2021
    config = ConfigDict(dict(system="ifr", seed=0))
    config.num_steps = 8_000 if long else 6_000
    config.compute_dtype = "bfloat16"
    config.init_from = ""  # a checkpoint; the paper starts from COCO weights
    config.init_fresh = ()  # regexes of paths that stay random
    config.data = common.clips(options, frame_range=20, short_side=(360, 480))
    config.test = dict(
        split=common.valid_split(options.dataset), videos=0, short_side=480,
        long_side=1333, top=10, chunk=8,
        frame_buckets=(8, 16, 24, 36, 48, 64, 96),
        **common.INFERENCE,
    )  # fmt: skip
    config.model = dict(
        num_classes=common.num_classes(options.dataset),
        backbone=dict(
            name="swin", variant="tiny", window=7, drop_path=0.3, remat=False
        ),
        pixel_decoder=dict(dim=256, layers=6, heads=8, points=4, mlp_dim=1024),
        mask_decoder=dict(
            kind="ifr", dim=256, layers=9, heads=8, queries=100, mlp_dim=2048
        ),
        frame_queries=dict(
            frame_ffn=True, type_embed=False, mask_clip_group=True,
            temporal_position=False, remat=options.frames > 2,
        ),
    )  # fmt: skip
    config.loss = dict(
        kind="focal", label=2.0, mask=5.0, dice=5.0, points=12_544,
        cross_frame=0.3,  # lambda_e, Eq. 6-7 of the paper
        no_object=0.1,
    )  # fmt: skip
    config.optimizer = dict(
        learning_rate=1e-4, weight_decay=0.05, clip_norm=0.01, betas=(0.9, 0.999),
        eps=1e-8, warmup_steps=0, schedule="step",
        decay_at=(5_500,) if long else (4_000,),
        # (path pattern, multiplier): the first match wins, every parameter must match.
        rates=(("backbone/.*", 0.1), (".*", 1.0)),
        decays=common.NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    config.train = dict(
        log_every=20, checkpoint_every=500, keep=3, image_every=1_000, eval_every=0
    )
    return common.shrink(config) if options.debug else config

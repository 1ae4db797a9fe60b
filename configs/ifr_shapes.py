"""IFR, small, from scratch on moving shapes. Results: docs/results.md#moving-shapes.

Run:   python -m vis_jax.main --config configs/ifr_shapes.py --workdir runs/shapes
Long:  the same with --config configs/ifr_shapes.py:large,steps=15000
Smoke: the same with --config configs/ifr_shapes.py:debug (any CPU, about a minute)

`decoder=m2f_vis` trains the baseline; `difficulty` is easy, medium or hard; `large` has
videos of 96 x 160 pixels instead of 64 x 96, and 20,000 of them instead of 1,000.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(
        arg, decoder="ifr", difficulty="easy", steps=1_500, large=False, debug=False
    )
    height, width = (96, 160) if options.large else (64, 96)
    config = ConfigDict(dict(system="ifr", seed=0, num_steps=options.steps))
    config.compute_dtype = "float32"
    config.init_from = ""
    config.init_fresh = ()  # regexes of paths that stay random
    config.data = dict(
        name="moving_shapes", root="", split="train", held_out=(), loader="tf",
        frames=2, frame_range=4, short_side=(height,), long_side=1333,
        canvas=(height, width), instances=5 if options.difficulty == "easy" else 10,
        crop=None, flip=0.5, colour=0.1, batch_size=8,
        shapes=dict(
            height=height, width=width, length=12, difficulty=options.difficulty,
            num_videos=20_000 if options.large else 1_000,
        ),
    )  # fmt: skip
    config.test = dict(
        split="val", videos=50, short_side=height, long_side=1333, top=10, chunk=12,
        frame_buckets=(12, 24, 36),
        **common.INFERENCE,
    )  # fmt: skip
    config.model = dict(
        num_classes=common.NUM_CLASSES["moving_shapes"],
        backbone=dict(name="resnet", variant="thin", norm="group"),
        pixel_decoder=dict(dim=64, layers=1, heads=4, points=4, mlp_dim=128),
        mask_decoder=dict(
            kind=options.decoder, dim=64, layers=3, heads=4, queries=16, mlp_dim=128
        ),
        frame_queries=dict(
            frame_ffn=True, type_embed=False, mask_clip_group=True,
            temporal_position=False, remat=False,
        ),
    )  # fmt: skip
    cross = 0.3 if options.decoder == "ifr" else 0.0
    config.loss = dict(
        kind="focal", label=2.0, mask=5.0, dice=5.0, points=128, cross_frame=cross,
        no_object=0.1,
    )  # fmt: skip
    config.optimizer = dict(
        learning_rate=1e-3, weight_decay=0.05, clip_norm=0.1, betas=(0.9, 0.999),
        eps=1e-8, warmup_steps=50, schedule="cosine", decay_at=(),
        rates=((".*", 1.0),),
        decays=common.NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    config.train = dict(
        log_every=20, checkpoint_every=500, keep=2, image_every=500, eval_every=0
    )
    return common.shrink(config) if options.debug else config

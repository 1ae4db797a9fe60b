"""IFR, small, from scratch on moving shapes. Results: docs/results.md#moving-shapes.

Run:   python -m vis_jax.main --config configs/ifr_shapes.py --workdir runs/shapes
Long:  the same with --config configs/ifr_shapes.py:large,steps=15000
Smoke: the same with --config configs/ifr_shapes.py:debug (any CPU, about a minute)

`decoder=m2f_vis` trains the baseline; `difficulty` is easy, medium, hard or crowd;
`large` has 20,000 videos of 96 x 160 pixels instead of 1,000 of 64 x 96.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(
        arg, decoder="ifr", difficulty="easy", steps=1_500, large=False, debug=False
    )
    height, width = (96, 160) if options.large else (64, 96)
    config = ConfigDict(dict(system="ifr", num_steps=options.steps))
    config.data = dict(
        name="moving_shapes", frame_range=4, short_side=(height,),
        canvas=(height, width), instances=5 if options.difficulty == "easy" else 10,
        colour=0.1, batch_size=8,
        shapes=dict(
            height=height, width=width, length=12, difficulty=options.difficulty,
            num_videos=20_000 if options.large else 1_000,
        ),
    )  # fmt: skip
    config.model = dict(
        num_classes=common.NUM_CLASSES["moving_shapes"],
        backbone=dict(name="resnet", variant="thin", norm="group"),
        pixel_decoder=dict(dim=64, layers=1, heads=4, mlp_dim=128),
        mask_decoder=dict(
            kind=options.decoder, dim=64, layers=3, heads=4, queries=16, mlp_dim=128
        ),
    )
    # The baseline has no frame queries.
    cross = 0.3 if options.decoder == "ifr" else 0.0
    config.loss = dict(kind="focal", points=128, cross_frame=cross)
    config.test = dict(
        split="val", videos=50, short_side=height, chunk=12, frame_buckets=(12, 24, 36)
    )
    config.optimizer = dict(
        learning_rate=1e-3, clip_norm=0.1, warmup_steps=50,
        schedule="cosine", decays=common.NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    config.train = dict(keep=2, image_every=500)
    return common.shrink(config) if options.debug else config

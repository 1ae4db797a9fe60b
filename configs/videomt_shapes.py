"""VidEoMT, small, from scratch on moving shapes.

Results: docs/results.md#videomt.

Run:   python -m vis_jax.main --config configs/videomt_shapes.py --workdir runs/shapes
Smoke: the same with --config configs/videomt_shapes.py:debug (any CPU, about a minute)

`difficulty` is easy, medium, hard or crowd; `propagation` is fusion, gru, or none, with
which frames are independent; `form` of the transformer is dinov2 or dinov3.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(
        arg, difficulty="easy", propagation="fusion", form="dinov2", steps=5_000,
        debug=False,
    )  # fmt: skip
    config = ConfigDict(dict(system="videomt", num_steps=options.steps))
    config.data = dict(
        name="moving_shapes", frames=4, sampling=dict(kind="run"), short_side=(96,),
        canvas=(96, 160), instances=5 if options.difficulty == "easy" else 10,
        colour=0.1, batch_size=8,
        shapes=dict(
            height=96, width=160, length=12, difficulty=options.difficulty,
            num_videos=20_000,
        ),
    )  # fmt: skip
    config.model = dict(
        num_classes=common.NUM_CLASSES["moving_shapes"],
        # As many patches on the longer side as the table of positions has.
        backbone=dict(
            name="vit", variant="thin", form=options.form, dim=128, depth=6, heads=4,
            patch=16, registers=1, table=10,
        ),
        queries=24, decoder=dict(blocks=2), propagation=options.propagation,
        remat=False,
    )  # fmt: skip
    config.loss = dict(
        points=256, aux_norm=True, aux_last=True,
        matching="frame" if options.propagation == "none" else "clip",
    )  # fmt: skip
    config.test = dict(
        split="val", videos=50, short_side=96, chunk=12, frame_buckets=(12, 24, 36)
    )
    config.optimizer = dict(
        learning_rate=5e-4, clip_norm=1.0, warmup_steps=200, schedule="cosine",
        decays=common.NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    config.train = dict(keep=2, image_every=500)
    return common.shrink(config) if options.debug else config

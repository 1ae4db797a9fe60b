"""LVMT and PMT: queries with blocks of their own on a frozen DINO, as published.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/lvmt.py:form=dinov3 \\
           --workdir runs/lvmt --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/dinov3
Smoke: the same with --config configs/lvmt.py:debug (any CPU, about a minute)

`propagation` is gru (LVMT, trained on clips of 15 frames in chunks of 5) or fusion
(PMT, clips of 5 frames); `size` is large, base or small; `form` is dinov2 or dinov3;
`patch` is 16 or 14, as in configs/eomt.py; `dataset` is ytvis2019, ytvis2021,
ytvis2022, ovis, folder (classes from its file) or moving_shapes.
Paper, large, on YouTube-VIS 2019, 2021 and OVIS: LVMT 70.1, 66.4 and 55.6 AP with
DINOv2, 69.6, 65.7 and 56.7 with DINOv3; PMT 68.8 and 63.8 with DINOv2, 69.2, 64.3 and
52.0 with DINOv3.
"""

from ml_collections import ConfigDict

from configs import common, eomt, videomt

LEVELS: dict[str, tuple[int, ...]] = {
    "large": (5, 11, 17, 23),
    "base": (2, 5, 8, 11),
    "small": (2, 5, 8, 11),
}


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config."""
    common.check_choice("propagation", options.propagation, ("gru", "fusion"))
    common.check_choice("size", options.size, LEVELS)
    gated = options.propagation == "gru"
    options.frames = 15 if gated else 5
    levels, chunk = LEVELS[options.size], 5 if gated else 0
    if options.debug:  # two blocks of the backbone, two frames
        levels, chunk = (0, 1), 1 if gated else 0
    ovis = options.dataset == "ovis"
    config = videomt.full_size(options)
    config.num_steps = 80_000 if ovis and gated else 60_000
    config.data.frame_range = options.frames // 2
    config.model = eomt.model(options)
    config.model.backbone.rescale = 1.0  # it is frozen
    config.model.update(
        propagation=options.propagation,
        decoder=dict(kind="own", blocks=6, levels=levels),
    )
    config.loss = dict(chunk=chunk)
    config.test.short_side = 544
    config.optimizer = dict(
        schedule="poly", warmup_steps=6_000, rates=(("backbone/.*", 0.0), (".*", 1.0))
    )
    return config


recipe = common.recipes(
    full_size, size="large", form="dinov2", patch=16, dataset="ytvis2019",
    propagation="gru",
)  # fmt: skip
get_config = recipe()

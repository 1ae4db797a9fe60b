"""RGNNVIS, small, on moving shapes. Results: docs/results.md#rgnnvis.

Run:   python -m vis_jax.main --config configs/yolact_shapes.py:difficulty=crowd \\
           --workdir runs/yolact_crowd
       python -m vis_jax.main --config configs/rgnn_vis_shapes.py \\
           --workdir runs/rgnn_vis --config.init_from=runs/yolact_crowd
Smoke: the same with --config configs/rgnn_vis_shapes.py:debug (any CPU)

It starts from a YOLACT, which stays frozen. `difficulty` is easy, medium, hard or
crowd; `plus` is RGNNVIS++; `preset` as for configs/rgnn_vis.py.
"""

from ml_collections import ConfigDict

from configs import common, rgnn_vis, yolact_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(
        arg, difficulty="crowd", steps=1_000, plus=False, preset="chosen", debug=False
    )
    common.check_choice("preset", options.preset, rgnn_vis.PRESETS)
    config = yolact_shapes.get_config(f"difficulty={options.difficulty}")
    config.system = "rgnn_vis"
    config.num_steps = options.steps
    config.data.update(
        frames=16 if options.plus else 8, batch_size=4, sampling=dict(kind="run")
    )
    common.set_fields(
        config.model,
        dict(
            graph=dict(tracks=16, dim=64),
            appearance=dict(narrow=64),
            masks=dict(channels=8),
        ),
    )
    config.loss = dict(stride=4)
    config.test = dict(
        split="val", videos=50, short_side=96, objects=12, top=16, clip_length=12
    )
    common.set_fields(config, rgnn_vis.PRESETS[options.preset])
    if options.plus:
        common.set_fields(config.model, rgnn_vis.PLUS)
    config.init_fresh = rgnn_vis.NEW
    config.optimizer = dict(
        kind="adam", learning_rate=1e-3, weight_decay=1e-4, rates=rgnn_vis.FROZEN,
        clip_norm=5.0, warmup_steps=50, schedule="cosine",
    )  # fmt: skip
    return common.shrink(config) if options.debug else config

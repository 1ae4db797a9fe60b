"""IAI on CondInst, small, from scratch on moving shapes.

Results: docs/results.md#iai.

Run:   python -m vis_jax.main --config configs/iai_condinst_shapes.py \\
           --workdir runs/iai_shapes
Smoke: the same with --config configs/iai_condinst_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. The association is on the stage of stride
16, since there are only 15 tokens at stride 32.

With `--config.init_from` it starts from a run of configs/condinst_shapes.py; the ID
head and the association are new.
"""

from ml_collections import ConfigDict

from configs import common, condinst_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, difficulty="crowd", steps=2_500, debug=False)
    config = condinst_shapes.get_config(f"difficulty={options.difficulty}")
    config.system, config.num_steps = "iai", options.steps
    config.data.update(frames=5, batch_size=4, sampling=dict(kind="steps"))
    config.model.update(
        # More than twice the objects of a video: early in training, known objects are
        # mistaken for new ones, and each mistake uses up an identity.
        ids=dict(count=24),
        # All of the 64 channels.
        hab=dict(stage="res4", dim=64, mlp_dim=128, use_cls_projector=False),
    )
    # Level 4 is computed from the stage of the association.
    config.init_fresh = (
        "hab/.*", "detector/head/id_.*", "detector/fpn/lateral4/.*"
    )  # fmt: skip
    config.test = dict(
        split="val", videos=50, short_side=96, top=24, objects=10, clip_length=12,
    )  # fmt: skip
    return common.shrink(config) if options.debug else config

"""MaskProp, small, from scratch on moving shapes.

Results: docs/results.md#maskprop.

Run:   python -m vis_jax.main --config configs/mask_prop_shapes.py \\
           --workdir runs/mask_prop_shapes
Smoke: the same with --config configs/mask_prop_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. There is a track head, too, so that one
model serves all of `--config.test.propagation`: deform, flow, iou, track_head.
"""

from ml_collections import ConfigDict

from configs import cascade_shapes, common, mask_prop


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(arg, difficulty="crowd", steps=3_000, debug=False)
    config = cascade_shapes.get_config(
        f"difficulty={options.difficulty},steps={options.steps},track"
    )
    mask_prop.carry_masks(config)
    config.data.frame_range = 6
    config.model.update(
        # Regions are small: a cell of theirs is about as large as one of the pyramid.
        roi_samples=1,
        propagation=dict(dim=64),
        refinement=dict(side=64, dim=16, blocks=2),
    )
    config.loss = dict(refined=1)
    config.init_fresh = ()
    return common.shrink(config) if options.debug else config

"""MaskProp, small, from scratch on moving shapes.

Results: docs/results.md#maskprop.

Run:   python -m vis_jax.main --config configs/mask_prop_shapes.py \\
           --workdir runs/mask_prop_shapes
Smoke: the same with --config configs/mask_prop_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. A track head is also trained, so that one
model serves all values of `--config.test.propagation`: deform, flow, iou, track_head.
"""

from ml_collections import ConfigDict

from configs import cascade_shapes, common, mask_prop


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, difficulty="crowd", steps=3_000, debug=False)
    config = cascade_shapes.get_config(
        f"difficulty={options.difficulty},steps={options.steps},track"
    )
    mask_prop.carry_masks(config)
    config.data.frame_range = 6
    config.model.update(
        # Small regions: their cells are about as large as those of the pyramid.
        roi_samples=1,
        propagation=dict(dim=64),
        refinement=dict(side=64, dim=16, blocks=2),
    )
    config.loss = dict(refined=1)
    config.init_fresh = ()
    return common.shrink(config) if options.debug else config

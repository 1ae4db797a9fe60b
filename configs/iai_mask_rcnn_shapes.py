"""IAI on Mask R-CNN, small, from scratch on moving shapes.

Results: docs/results.md#iai.

Run:   python -m vis_jax.main --config configs/iai_mask_rcnn_shapes.py \\
           --workdir runs/iai_mask_rcnn_shapes
Smoke: the same with --config configs/iai_mask_rcnn_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. See configs/iai_condinst_shapes.py.

With `--config.init_from` it starts from a run of configs/mask_track_rcnn_shapes.py,
whose track head is not used; the ID head and the association are new.
"""

from ml_collections import ConfigDict

from configs import common, iai_condinst_shapes, mask_track_rcnn_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, difficulty="crowd", steps=2_500, debug=False)
    text = f"difficulty={options.difficulty},steps={options.steps}"
    config = mask_track_rcnn_shapes.get_config(text)
    like = iai_condinst_shapes.get_config(text)
    config.system, config.data, config.test = "iai_mask_rcnn", like.data, like.test
    del config.model["track_head"]
    config.model.update(ids=like.model.ids.count, hab=like.model.hab)
    # Level 4 is computed from the stage of the association.
    config.init_fresh = (
        "hab/.*", "box_head/id_logits/.*", "fpn/lateral4/.*", "track_head/.*",
    )  # fmt: skip
    return common.shrink(config) if options.debug else config

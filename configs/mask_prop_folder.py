"""MaskProp, small, from scratch on a folder of videos.

Results: docs/results.md#maskprop.

Run:   python -m vis_jax.main --config configs/mask_prop_folder.py \\
           --workdir runs/folder --config.data.root=/data/videos
Smoke: python -m vis_jax.main --config configs/mask_prop_folder.py:debug \\
           --workdir runs/debug --config.data.root=/data/videos (any CPU)

With `--config.init_from` it starts from a run of configs/mask_prop_shapes.py; the
layers that depend on the classes are then new, as the classes differ.
"""

from ml_collections import ConfigDict

from configs import common, mask_prop_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, steps=2_000, debug=False)
    config = mask_prop_shapes.get_config(f"steps={options.steps}")
    common.put_on_folder(config, **common.LINKED_ON_FOLDER)
    config.init_fresh = (
        "box_heads_./class_logits/.*",
        "mask_heads_./mask_logits/.*",
        "semantic_head/class_logits/.*",
    )
    return common.shrink(config) if options.debug else config

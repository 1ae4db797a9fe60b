"""MaskTrack R-CNN, small, from scratch on a folder of videos.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/mask_track_rcnn_folder.py \\
           --workdir runs/folder --config.data.root=/data/videos
Smoke: python -m vis_jax.main --config configs/mask_track_rcnn_folder.py:debug \\
           --workdir runs/debug --config.data.root=/data/videos (any CPU)

With `--config.init_from` it starts from a run of configs/mask_track_rcnn_shapes.py; the
layers that depend on the classes are then new, as the classes differ.
"""

from ml_collections import ConfigDict

from configs import common, mask_track_rcnn_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, steps=2_000, debug=False)
    config = mask_track_rcnn_shapes.get_config(f"steps={options.steps}")
    common.put_on_folder(config, **common.LINKED_ON_FOLDER)
    config.init_fresh = (
        "box_head/(class_logits|deltas)/.*",
        "mask_head/mask_logits/.*",
    )
    config.data.frame_range = 1_000  # any two frames of a video
    return common.shrink(config) if options.debug else config

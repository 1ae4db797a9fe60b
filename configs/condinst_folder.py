"""CondInst, small, from scratch on a folder of videos.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/condinst_folder.py \\
           --workdir runs/folder --config.data.root=/data/videos
Smoke: python -m vis_jax.main --config configs/condinst_folder.py:debug \\
           --workdir runs/debug --config.data.root=/data/videos (any CPU)

With `--config.init_from` it starts from a run of configs/condinst_shapes.py; the layers
that depend on the classes are then new, as the classes differ. With `track` only the
track head for mask_track is trained, starting from a run of this recipe without it.
"""

from ml_collections import ConfigDict

from configs import common, condinst_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, steps=2_000, track=False, debug=False)
    config = condinst_shapes.get_config(f"steps={options.steps},track={options.track}")
    common.put_on_folder(config, **common.LINKED_ON_FOLDER)
    if options.track:
        config.data.frame_range = 1_000  # any two frames of a video
    else:
        config.init_fresh = ("detector/head/class_logits/.*",)
    return common.shrink(config) if options.debug else config

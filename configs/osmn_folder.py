"""OSMN, small, on a folder of videos, on top of a trained detector.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/osmn_folder.py --workdir runs/osmn \\
           --config.init_from runs/folder --config.data.root=/data/videos
       python -m vis_jax.main compare --workdir runs/osmn
Smoke: python -m vis_jax.main --config configs/osmn_folder.py:debug \\
           --workdir runs/debug --config.data.root=/data/videos (any CPU)

`init_from` is a run of configs/mask_track_rcnn_folder.py.
"""

from ml_collections import ConfigDict

from configs import common, mask_track_rcnn_folder, osmn_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, steps=1_200, debug=False)
    config = osmn_shapes.get_config(f"steps={options.steps}")
    # The same detector as in the other config, whose weights it loads.
    folder = mask_track_rcnn_folder.get_config()
    config.data.update(folder.data)
    config.data.update(frames=3, frame_range=2, batch_size=4)
    config.test.update(folder.test)
    config.model.num_classes = folder.model.num_classes
    return common.shrink(config) if options.debug else config

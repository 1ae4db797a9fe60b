"""OSMN, small, on moving shapes, on top of a trained detector.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/osmn_shapes.py --workdir runs/osmn \\
           --config.init_from runs/mask_track_rcnn_shapes
       python -m vis_jax.main compare --workdir runs/osmn
Smoke: python -m vis_jax.main --config configs/osmn_shapes.py:debug --workdir runs/debug

`init_from` is a run of configs/mask_track_rcnn_shapes.py; its detector is frozen.
"""

from ml_collections import ConfigDict

from configs import common, mask_track_rcnn_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, difficulty="hard", steps=1_200, debug=False)
    # The same detector as in the other config, whose weights it loads.
    config = mask_track_rcnn_shapes.get_config(f"difficulty={options.difficulty}")
    config.system = "osmn"
    config.num_steps = options.steps
    config.init_fresh = ("osmn/.*",)
    # Three of five consecutive frames, most of which are adjacent.
    config.data.update(frames=3, frame_range=2, batch_size=4)
    config.model.osmn = dict(
        widths=(16, 16, 32, 32, 32), depths=(1, 1, 2, 2, 2), hidden=64, side_width=8,
        guide_side=64,
    )  # fmt: skip
    config.optimizer.update(learning_rate=1e-3, clip_norm=None)
    config.optimizer.rates = (("osmn/.*", 1.0), (".*", 0.0))
    return common.shrink(config) if options.debug else config

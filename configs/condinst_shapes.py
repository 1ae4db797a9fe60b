"""CondInst, small, from scratch on moving shapes.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/condinst_shapes.py \\
           --workdir runs/condinst_shapes
Smoke: the same with --config configs/condinst_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. `--config.test.tracker` of `evaluate` is
iou, deep_sort or seq; `compare` runs them all on the same detections. With `track` only
a track head for mask_track is trained, on top of a trained CondInst:
--config.init_from=runs/condinst_shapes.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(
        arg, difficulty="easy", steps=3_000, track=False, debug=False
    )
    config = common.small_detector("condinst", options, frames=1, batch_size=16)
    config.model.update(
        head=dict(convs=2),
        masks=dict(dim=32, convs=2),
    )
    # Objects of 13 to 40 pixels belong to the two finest levels.
    config.loss = dict(ranges=(24.0, 48.0, 96.0, 192.0), positives=64)
    if options.track:
        common.add_track_head(config, width=128)
        config.data.update(common.ANY_PAIR)
    return common.shrink(config) if options.debug else config

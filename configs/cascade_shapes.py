"""Hybrid Task Cascade, small, from scratch on moving shapes.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/cascade_shapes.py \\
           --workdir runs/cascade_shapes
Smoke: the same with --config configs/cascade_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. With `track` a track head is also trained,
on pairs of frames. `--config.test.tracker` of `evaluate` is iou, deep_sort, seq or,
with a head, mask_track; `compare` runs them all on the same detections.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(
        arg, difficulty="hard", steps=3_000, track=False, debug=False
    )
    frames = dict(frames=2, frame_range=12) if options.track else dict(frames=1)
    config = common.small_detector("cascade", options, batch_size=8, **frames)
    config.model.update(
        rpn=dict(dim=64, proposals=60, scale=4.0),
        regions=dict(sampled=40, positives=10),
        box_head=dict(width=128),
        mask_head=dict(dim=32, convs=2),
        semantic=dict(dim=32, convs=2),
    )
    if options.track:
        config.model.track_head = dict(width=128)
        config.test.tracker = "mask_track"
    return common.shrink(config) if options.debug else config

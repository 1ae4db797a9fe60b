"""MaskTrack R-CNN, small, from scratch on moving shapes.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/mask_track_rcnn_shapes.py \\
           --workdir runs/mask_track_rcnn_shapes
Smoke: the same with --config configs/mask_track_rcnn_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. `--config.test.tracker` of `evaluate` is
mask_track, iou, deep_sort or seq; `compare` runs them all on the same detections.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, difficulty="hard", steps=3_000, debug=False)
    # Any two frames of a video.
    config = common.small_detector(
        "mask_track_rcnn", options, frame_range=12, batch_size=8
    )
    config.model.update(
        rpn=dict(dim=64, proposals=60, scale=4.0),
        regions=dict(sampled=40, positives=10),
        box_head=dict(width=128),
        mask_head=dict(dim=32, convs=2),
        track_head=dict(width=128),
    )
    return common.shrink(config) if options.debug else config

"""YOLACT, small, from scratch on moving shapes.

Results: docs/results.md#trackers.

Run:   python -m vis_jax.main --config configs/yolact_shapes.py \\
           --workdir runs/yolact_shapes
Smoke: the same with --config configs/yolact_shapes.py:debug (any CPU)

`difficulty` is easy, medium, hard or crowd. `--config.test.tracker` of `evaluate` is
iou, deep_sort or seq; `compare` runs them all on the same detections. With `track` only
the track head for mask_track is trained, on top of a trained YOLACT:
--config.init_from=runs/yolact_shapes.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(
        arg, difficulty="easy", steps=3_000, track=False, debug=False
    )
    config = common.small_detector("yolact", options, frames=1, batch_size=16)
    config.model.update(
        # 1, 1/2 and 2 in pixels, and sides of nearly as many: objects have 13 to 40.
        priors=dict(
            sides=(15.0, 30.0, 60.0, 120.0, 240.0), ratios=(0.6, 0.3, 1.2),
            divisor=124.0, image=(96, 160),
        ),
        prototypes=16,
        dropout=0.0,
    )  # fmt: skip
    config.loss = dict(masks=50)
    if options.track:
        common.add_track_head(config, width=128)
        config.data.update(common.ANY_PAIR)
    return common.shrink(config) if options.debug else config

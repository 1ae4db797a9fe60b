"""MaskTrack R-CNN, ResNet-101. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask_track_rcnn_r101.py \\
           --workdir runs/mask_track_rcnn_r101 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_mask_rcnn_r101
Smoke: the same with --config configs/mask_track_rcnn_r101.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes. `--config.test.tracker=..` links the same detections by a baseline of the
paper: iou, deep_sort or seq.
Paper: 31.9 AP on YouTube-VIS 2019, as later papers quote it.
Memory: about 0.9 GB and 1.3 GB for each pair on a device, an estimate of --dry_run.

All else is that of configs/mask_track_rcnn_r50.py.
"""

from ml_collections import ConfigDict

from configs import common, mask_track_rcnn_r50


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` is what follows the colon of --config."""
    options = common.parse_arg(arg, dataset="ytvis2019", frames=2, debug=False)
    config = mask_track_rcnn_r50.get_config(
        f"dataset={options.dataset},frames={options.frames}"
    )
    config.model.backbone.variant = "101"
    return common.shrink(config) if options.debug else config

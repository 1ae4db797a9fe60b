"""MaskTrack R-CNN, ResNet-101. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask_track_rcnn_r101.py \\
           --workdir runs/mask_track_rcnn_r101 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_mask_rcnn_r101
Smoke: the same with --config configs/mask_track_rcnn_r101.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes. `--config.test.tracker=..` selects a baseline of the paper as the
tracker: iou, deep_sort or seq.
Paper: 31.9 AP on YouTube-VIS 2019, as later papers quote it.
Memory: about 0.9 GB plus 1.3 GB per pair on a device, estimated by --dry_run.
"""

from configs import mask_track_rcnn

get_config = mask_track_rcnn.recipe(backbone="r101")

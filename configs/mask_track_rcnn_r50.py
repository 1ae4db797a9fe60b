"""MaskTrack R-CNN, ResNet-50. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask_track_rcnn_r50.py \\
           --workdir runs/mask_track_rcnn_r50 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_mask_rcnn_r50
Smoke: the same with --config configs/mask_track_rcnn_r50.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes. `--config.test.tracker=..` selects a baseline of the paper as the
tracker: iou, deep_sort or seq.
Paper: 30.3 AP on YouTube-VIS 2019, where runs vary between 28 and 31; 10.8 on OVIS,
from the authors of OVIS.
Memory: about 0.7 GB plus 0.9 GB per pair on a device, estimated by --dry_run.

Deviations: see configs/mask_track_rcnn.py.
"""

from configs import mask_track_rcnn

get_config = mask_track_rcnn.recipe(backbone="r50")

"""YOLACT, ResNet-101. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/yolact_r101.py \\
           --workdir runs/yolact_r101 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_yolact_r101
Smoke: the same with --config configs/yolact_r101.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, coco, folder (classes from its file)
or moving_shapes. `--config.test.tracker=..` selects the tracker: iou, deep_sort or seq;
with `track` a track head for mask_track is trained, starting from
--config.init_from=runs/yolact_r101.

Deviations: see configs/yolact.py.
"""

from configs import yolact

get_config = yolact.recipe(backbone="r101")

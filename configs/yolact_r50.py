"""YOLACT, ResNet-50. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/yolact_r50.py \\
           --workdir runs/yolact_r50 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_yolact_r50
Smoke: the same with --config configs/yolact_r50.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, coco, folder (classes from its file)
or moving_shapes. `--config.test.tracker=..` selects the tracker: iou, deep_sort or seq;
with `track` a track head for mask_track is trained, starting from
--config.init_from=runs/yolact_r50.

Deviations: see configs/yolact.py.
"""

from configs import yolact

get_config = yolact.recipe(backbone="r50")

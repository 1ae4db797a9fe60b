"""Hybrid Task Cascade, ResNet-50. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/cascade_r50.py:track \\
           --workdir runs/cascade_r50 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_htc_r50
Smoke: the same with --config configs/cascade_r50.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, coco, folder (classes from its file)
or moving_shapes. `--config.test.tracker=..` selects the tracker: iou, deep_sort, seq
or, with `track`, mask_track.

Deviations: see configs/cascade.py.
"""

from configs import cascade

get_config = cascade.recipe(backbone="r50")

"""CondInst, ResNet-50. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/condinst_r50.py \\
           --workdir runs/condinst_r50 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_condinst_r50
Smoke: the same with --config configs/condinst_r50.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, coco, folder (classes from its file)
or moving_shapes. `--config.test.tracker=..` selects the tracker: iou, deep_sort or seq.

Deviations: see configs/condinst.py.
"""

from configs import condinst

get_config = condinst.recipe(backbone="r50")

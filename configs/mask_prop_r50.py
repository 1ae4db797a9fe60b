"""MaskProp, ResNet-50. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask_prop_r50.py \\
           --workdir runs/mask_prop_r50 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_htc_r50
Smoke: the same with --config configs/mask_prop_r50.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes; `track` adds a track head.

Deviations: see configs/mask_prop.py.
"""

from configs import mask_prop

get_config = mask_prop.recipe(backbone="r50")

"""Mask2Former-VIS, ResNet-50: the baseline of IFR.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask2former_vis_r50.py \\
           --workdir runs/mask2former_vis_r50 --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/mask2former_vis_r50.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes.
Paper: 46.4 AP on YouTube-VIS 2019, 40.6 on 2021, from COCO weights.
"""

from configs import ifr

get_config = ifr.recipe(backbone="r50", decoder="m2f_vis")

"""IFR on Mask2Former-VIS, ResNet-50. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/ifr_r50.py --workdir runs/ifr_r50 \\
           --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/ifr_r50.py:debug (any CPU, about a minute)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes.
Paper: 46.5 AP on YouTube-VIS 2019, 41.8 on 2021, from COCO weights.
"""

from configs import ifr

get_config = ifr.recipe(backbone="r50")

"""Mask2Former-VIS, ResNet-101. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask2former_vis_r101.py \\
           --workdir runs/mask2former_vis_r101 --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/mask2former_vis_r101.py:debug (any CPU, a minute)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes.
Paper: 49.2 AP on YouTube-VIS 2019, 42.4 on 2021, from COCO weights.
Memory: an estimated 21 GB on each device with 2 clips of 2 frames (`--dry_run`).
"""

from configs import ifr

get_config = ifr.recipe(backbone="r101", decoder="m2f_vis")

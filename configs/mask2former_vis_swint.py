"""Mask2Former-VIS, Swin-T. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask2former_vis_swint.py \\
           --workdir runs/mask2former_vis_swint --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/mask2former_vis_swint.py:debug (any CPU, a minute)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes.
Paper: 51.5 AP on YouTube-VIS 2019, 45.9 on 2021, from COCO weights.
Memory: an estimated 23 GB on each device with 2 clips of 2 frames (`--dry_run`).
"""

from configs import ifr

get_config = ifr.recipe(backbone="swint", decoder="m2f_vis")

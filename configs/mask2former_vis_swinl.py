"""Mask2Former-VIS, Swin-L. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask2former_vis_swinl.py \\
           --workdir runs/mask2former_vis_swinl --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/mask2former_vis_swinl.py:debug (any CPU, a minute)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes. `queries` is 200 as published, or fewer: the first ones of the COCO
weights are then used.
Paper: 60.4 AP on YouTube-VIS 2019, 52.6 on 2021, from COCO weights, with 200
queries.
Memory: an estimated 41 GB on each device with 2 clips of 2 frames (`--dry_run`).
"""

from configs import ifr

get_config = ifr.recipe(backbone="swinl", decoder="m2f_vis", queries=200)

"""IFR on Mask2Former-VIS, Swin-L. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/ifr_swinl.py \\
           --workdir runs/ifr_swinl --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/ifr_swinl.py:debug (any CPU, a minute)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes. `queries` is 100 or 200; of COCO weights with 200 queries, the first 100
are used.
Paper: 62.1 AP on YouTube-VIS 2019, 54.7 on 2021, from COCO weights; with 200
queries 61.2 and 54.0.
Memory: an estimated 41 GB on each device with 2 clips of 2 frames (`--dry_run`).
"""

from configs import ifr

get_config = ifr.recipe(backbone="swinl")

"""IFR on Mask2Former-VIS, Swin-B. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/ifr_swinb.py \\
           --workdir runs/ifr_swinb --config.data.root=/data/ytvis2019
Smoke: the same with --config configs/ifr_swinb.py:debug (any CPU, a minute)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes.
Paper: 61.3 AP on YouTube-VIS 2019, 53.9 on 2021, from COCO weights.
Memory: an estimated 33 GB on each device with 2 clips of 2 frames (`--dry_run`).
"""

from configs import ifr

get_config = ifr.recipe(backbone="swinb")

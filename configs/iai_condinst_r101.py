"""IAI on CondInst, ResNet-101. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/iai_condinst_r101.py \\
           --workdir runs/iai_r101 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_condinst_r101
Smoke: the same with --config configs/iai_condinst_r101.py:debug (any CPU)

`dataset`, `ms` and `start`: see configs/iai_condinst.py, whose deviations it has.
"""

from configs import iai_condinst

get_config = iai_condinst.recipe(backbone="r101")

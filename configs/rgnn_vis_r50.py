"""RGNNVIS, ResNet-50. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/rgnn_vis_r50.py \\
           --workdir runs/rgnn_vis_r50 --config.data.root=/data/ytvis2019 \\
           --config.init_from=runs/yolact_r50
Smoke: the same with --config configs/rgnn_vis_r50.py:debug (any CPU)

`plus` is RGNNVIS++, `preset` chosen, paper or released, `dataset` ytvis2019, ytvis2021,
ytvis2022, ovis, joint, folder or moving_shapes.

Deviations: see configs/rgnn_vis.py.
"""

from configs import rgnn_vis

get_config = rgnn_vis.recipe(backbone="r50")

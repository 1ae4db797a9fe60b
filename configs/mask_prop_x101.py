"""MaskProp, ResNeXt-101 64x4d. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask_prop_x101.py \\
           --workdir runs/mask_prop_x101 --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_htc_x101_dcn
Smoke: the same with --config configs/mask_prop_x101.py:debug (any CPU)

`dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes from its file) or
moving_shapes; `track` adds a track head. `stsn` is the paper's best model, whose
features are enriched by those of other frames. `deform=False` has no deformable
convolutions.

Deviations: see configs/mask_prop.py.
"""

from configs import mask_prop

get_config = mask_prop.recipe(backbone="x101", deform=True)

"""IAI on Mask R-CNN, ResNet-50: a row of the paper's Table 6.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/iai_mask_rcnn_r50.py \\
           --workdir runs/iai_mask_rcnn --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_mask_rcnn_r50
Smoke: the same with --config configs/iai_mask_rcnn_r50.py:debug (any CPU)

`dataset` and `ms`: see configs/iai_condinst.py, whose deviations it has. Its code was
not released: the settings of Mask R-CNN are those of mmdetection.

Deviation: training uses 1,000 proposals, as at test time, instead of 2,000.
"""

from ml_collections import ConfigDict

from configs import common, iai_condinst

FRESH = ("hab/.*", "box_head/id_logits/.*")  # parts that Mask R-CNN does not have


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config."""
    options.backbone, options.start = "r50", "condinst"
    config = iai_condinst.full_size(options)
    config.system = "iai_mask_rcnn"
    config.model = dict(
        num_classes=config.model.num_classes,
        backbone=config.model.backbone,
        rpn=dict(sampled=256, proposals=1_000),
        regions=dict(sampled=512, positives=128),
        ids=config.model.ids.count,
    )
    config.init_fresh = FRESH
    return config


recipe = common.recipes(full_size, dataset="ytvis2019", frames=5, ms=False)
get_config = recipe()

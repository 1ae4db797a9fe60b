"""IAI on CondInst with a ResNet. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/iai_condinst.py:backbone=r101,ms \\
           --workdir runs/iai --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_condinst_r101
Smoke: the same with --config configs/iai_condinst.py:debug (any CPU)

`backbone` is r50 or r101; `dataset` as for configs/ifr.py; `ms` trains at several
sizes. Training starts from a CondInst or, with `start=iai`, from an IAI trained on
another data set, like the paper's second row on OVIS. The files iai_condinst_r50.py and
iai_condinst_r101.py are these variants.

Rows of the paper's tables, each on top of this:
  4  model.ids.on=False, model.association=False, or both
  5  model.hab.use_local, use_global and use_cls_projector
  7  model.ids.loss: focal, or bce and softmax for what it calls CE
  8  model.ids.convs: 1, 2, 3 for its 2, 3 and 4 convolutions

Deviation: portrait videos are scaled down to fit the landscape canvas of training.
Deviation: `ms` draws only the short side, in steps of 8 pixels; the authors draw any
length and also a long side, and on OVIS independently for every frame.
"""

from ml_collections import ConfigDict

from configs import common, condinst

VARIANTS = condinst.VARIANTS
# Parts that the initial weights lack or have for other classes and identities.
FRESH = {
    "condinst": ("hab/.*", "detector/head/id_.*"),
    "iai": ("hab/id_bank/kernel", "detector/head/(id|class)_logits/.*"),
}


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config."""
    common.check_choice("backbone", options.backbone, VARIANTS)
    common.check_choice("start", options.start, FRESH)
    wide = options.dataset in ("ytvis2021", "ytvis2022", "ovis")
    config = ConfigDict(dict(system="iai", compute_dtype="bfloat16"))
    short_side = tuple(range(360, 481, 8)) if options.ms else (360,)
    config.data = common.clips(options, frame_range=10, short_side=short_side)
    config.data.update(
        long_side=960 if options.ms else 640, batch_size=16,
        canvas=(480, 960) if options.ms else (384, 640),
        sampling=dict(kind="steps"), flip_per="frame",
        instances=32 if options.dataset == "ovis" else 20,
    )  # fmt: skip
    epoch = condinst.updates_per_epoch(options.dataset, config.data.batch_size)
    config.num_steps = 12 * epoch
    config.model = dict(
        num_classes=common.num_classes(options.dataset),
        backbone=dict(name="resnet", variant=VARIANTS[options.backbone]),
        pixels="vgg",
        ids=dict(count=25 if wide else 20),
    )
    config.test = dict(split=common.valid_split(options.dataset), long_side=640)
    if options.dataset == "ovis":
        config.test.update(objects=50, top=50)
    if options.dataset == "ytvis2019" and options.backbone == "r101":
        config.test.update(candidates=1_000, score=0.05)
    config.init_fresh = FRESH[options.start]
    # As in the released code, where the projector of the block is named and trained
    # like the backbone.
    slow = "(backbone|hab/backbone_projector)/.*"
    config.optimizer = dict(
        learning_rate=1e-4, weight_decay=1e-4, warmup_steps=500, warmup_factor=0.001,
        decay_at=(8 * epoch, 11 * epoch),
        rates=(condinst.FROZEN, (slow, 0.1), (".*", 1.0)),
        decays=((slow, 0.9), (".*", 1.0)),
    )  # fmt: skip
    return config


recipe = common.recipes(
    full_size,
    backbone="r50",
    dataset="ytvis2019",
    frames=5,
    ms=False,
    start="condinst",
)
get_config = recipe()

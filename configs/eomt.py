"""EoMT, the image model that VidEoMT starts from: COCO, or single frames of videos.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/eomt.py:size=small \\
           --workdir runs/eomt --config.data.root=/data/coco \\
           --config.init_from=weights/dinov2
Smoke: the same with --config configs/eomt.py:debug (any CPU, about a minute)

`size` is large, base or small; `form` is dinov2 or dinov3: `convert --kind dino`
converts such weights to start from; `patch` is 16 or 14; 14 is that of DINOv2, whose
weights are then used without resizing, with masks at stride 7 instead of 4; `dataset`
is coco, or a video data set with clips of one frame, to which `data.stills` adds images
of COCO (docs/videomt.md). The authors do not publish how long they train on frames:
20,000 updates of 8 are a guess. In training, queries only attend to the patches of
their own mask; the fraction of such queries decreases to none.
Paper: 45.2 AP on COCO val2017 (large, 640 x 640), 45.9 with DINOv3.
"""

from ml_collections import ConfigDict

from configs import common
from configs.smallest import SMALL

BLOCKS = {"large": 24, "base": 12, "small": 12}
# Side of the position table by that of a patch: of 640 pixels, or DINOv2's own, 518.
_TABLES = {16: 40, 14: 37}
_EPOCH = 7_391  # updates of 16 images over COCO
# Categories of COCO that train other categories of a video data set; "" drops one.
# Equal names match by themselves.
_YTVIS = (
    ("car", "sedan"), ("motorcycle", "motorbike"), ("bicycle", "motorbike"),
    ("skis", "snowboard"), ("frisbee", "flying_disc"), ("mouse", ""),
)  # fmt: skip
_STILLS = {
    "ytvis2019": _YTVIS,
    "ytvis2021": _YTVIS,
    "ytvis2022": _YTVIS,
    "ovis": (
        ("car", "Vehical"),
        ("bus", "Vehical"),
        ("truck", "Vehical"),
        ("bird", ""),
    ),
}


def model(options: ConfigDict) -> ConfigDict:
    """Returns the section `model` for a size and a form."""
    common.check_choice("size", options.size, BLOCKS)
    common.check_choice("form", options.form, ("dinov2", "dinov3"))
    common.check_choice("patch", str(options.patch), ("16", "14"))
    return ConfigDict(
        dict(
            num_classes=common.num_classes(options.dataset),
            backbone=dict(
                name="vit",
                variant=options.size,
                form=options.form,
                patch=options.patch,
                table=_TABLES[options.patch],
                remat=True,
                rescale=2.0 if options.form == "dinov3" else 1.0,
            ),
            decoder=dict(blocks=4 if options.size == "large" else 3),
        )
    )


def stills(options: ConfigDict) -> ConfigDict:
    """Returns `data.stills` with a share of 0 and the authors' category pairs.

    Args:
      options: has `dataset`.
    """
    found = ConfigDict(dict(share=0.0))
    if options.dataset in _STILLS:
        found.names = _STILLS[options.dataset]
    return found


def canvas(side: int, options: ConfigDict) -> tuple[int, int]:
    """Returns the smallest square canvas that holds a side in pixels.

    Args:
      side: length in pixels.
      options: has `patch`.
    """
    multiple = 28 if options.patch == 14 else 32
    least = -(-side // multiple) * multiple
    return least, least


def optimizer(options: ConfigDict, *, decay: float, full: int = 0) -> ConfigDict:
    """Returns AdamW with layer-wise learning-rate decay.

    Args:
      options: has `size`, and `debug` for the smallest model.
      decay: learning rate of a block divided by that of the next block.
      full: number of last blocks with the full rate.
    """
    smallest = SMALL["videomt"]["model"]["backbone"]["depth"]
    depth = smallest if options.debug else BLOCKS[options.size]
    rates = [
        (
            f"backbone/blocks_{i}/.*",
            1.0 if i >= depth - full else decay ** (depth - 1 - i),
        )
        for i in range(depth)
    ]
    first = "backbone/(patch_embed/.*|cls_token|reg_tokens|positions)"
    return ConfigDict(
        dict(
            schedule="poly", warmup_steps=500, late=(("backbone/.*", 500, 1_000),),
            rates=(*rates, (first, decay ** (depth - 1)), (".*", 1.0)),
        )
    )  # fmt: skip


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config."""
    config = ConfigDict(dict(system="videomt", compute_dtype="bfloat16"))
    config.model = model(options)
    blocks, dinov3 = config.model.decoder.blocks, options.form == "dinov3"
    coco, options.frames = options.dataset == "coco", 1
    epochs = 12 if options.size == "large" else 24
    config.num_steps = epochs * _EPOCH if coco else 20_000
    # Masked attention ends block by block, in the first block first.
    span = config.num_steps // 6 if coco else config.num_steps * 4 // (5 * blocks)
    first, step = (span, 3 * span / (blocks - 1)) if coco else (0, span)
    starts = [int(first + i * step) for i in range(blocks)]
    masked = dict(start=tuple(starts), end=tuple(start + span for start in starts))
    if options.debug:  # a single block, four updates
        masked = dict(start=(1,), end=(3,))
    config.data = common.clips(options, frame_range=0, short_side=(640,))
    config.data.update(
        canvas=canvas(640, options), zoom=(0.1, 2.0), instances=60,
        batch_size=16 if coco else 8, stills=stills(options),
    )  # fmt: skip
    config.model.update(propagation="none", masked_attention=masked)
    config.loss = dict(matching="frame", aux_norm=True, aux_last=True)
    config.test = dict(
        split=common.valid_split(options.dataset), short_side=640, long_side=640,
        top=100, quality=True, frame_buckets=(1, 8, 16, 24, 36, 48, 64, 96),
    )  # fmt: skip
    config.optimizer = optimizer(
        options, decay=0.8 if coco else 0.6, full=blocks if dinov3 else 0
    )
    config.optimizer.update(clip_norm=0.01)
    if dinov3:
        config.optimizer.update(
            learning_rate=2e-4,
            warmup_steps=2_000,
            late=(("backbone/.*", 2_000, 3_000),),
        )
    return config


recipe = common.recipes(
    full_size, size="large", form="dinov2", patch=16, dataset="coco"
)
get_config = recipe()

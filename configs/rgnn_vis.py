"""RGNNVIS and RGNNVIS++ with a ResNet. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/rgnn_vis.py:backbone=r101,plus \\
           --workdir runs/rgnn_vis --config.data.root=/data/ytvis2019 \\
           --config.init_from=runs/yolact
Smoke: the same with --config configs/rgnn_vis.py:debug (any CPU)

It starts from a YOLACT that configs/yolact.py has trained with the same `backbone` and
`dataset`, and keeps it frozen. `plus` is RGNNVIS++: norms, positions and clips of 20
frames. `dataset` as for configs/ifr.py, or `joint`: YouTube-VIS 2019 and OVIS, the
latter at --config.data.joint.root. Where the paper and its released code differ,
`preset` is paper, released or `chosen`: the paper where it is clear, else the code. The
files rgnn_vis_r50.py and rgnn_vis_r101.py are these variants.

Deviation: videos with fewer frames than a clip are padded, and videos may have any
size.
Deviation: batches without objects are not skipped.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {"r50": "50", "r101": "101"}
_CANVAS = (480, 864)
_JOINT = ("ytvis2019", 42)  # the first of two sets, and the categories of both
_VIDEOS = 1_867  # videos of YouTube-VIS 2019 that the paper trains on
_OVIS_VIDEOS = 607

# Settings by preset that differ from the defaults of the library.
_PAPER = dict(
    model=dict(graph=dict(variance="paper")),
    # The paper counts an IoU of exactly 0.5 as a match: the next smaller float.
    loss=dict(iou=0.49999997, match_threshold=0.3133, start_threshold=0.13),
    test=dict(match=0.31, start=0.31, video_class="majority"),
)
_RELEASED = dict(
    model=dict(
        dropout=0.0,
        graph=dict(
            residual_layers=2, feedback=True, fixed_variance=True, looks_from_zero=True,
            keep_boxes=False,
        ),
        appearance=dict(describe_background=False),
        masks=dict(background=10.0),
    ),
    loss=dict(
        match_threshold=0.1192, start_threshold=0.1192, duplicates=True,
        late_classes=False, birth_frame=False, normalised=False, whole_clip=True,
    ),
    test=dict(match=0.1192, start=0.1192),
)  # fmt: skip
PRESETS = {"chosen": {}, "paper": _PAPER, "released": _RELEASED}

# Only the association is trained; a YOLACT does not have it.
FROZEN = common.FROZEN_DETECTOR
NEW = ("(appearance|graph|masks)/.*",)
# Fields of `model` for RGNNVIS++.
PLUS = dict(graph=dict(layer_norm=True), appearance=dict(positions=True))


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config; `frames` is 0 for 10, or 20 with `plus`."""
    common.check_choice("backbone", options.backbone, VARIANTS)
    common.check_choice("preset", options.preset, PRESETS)
    joint = options.dataset == "joint"
    if joint:
        options.dataset, classes = _JOINT
    else:
        classes = common.num_classes(options.dataset)
    options.frames = options.frames or (20 if options.plus else 10)
    config = ConfigDict(dict(system="rgnn_vis", compute_dtype="bfloat16"))
    # A window of 720 x 1280 frames, scaled by 0.475 to 1.
    config.data = common.clips(options, frame_range=20, short_side=(720,))
    config.data.update(
        canvas=_CANVAS, zoom=(0.475, 1.0), batch_size=4, sampling=dict(kind="run"),
        instances=32 if options.dataset == "ovis" or joint else 16,
    )  # fmt: skip
    if joint:
        config.data.joint = dict(root="data/ovis")
    config.num_steps = _steps(options)
    config.model = dict(
        num_classes=classes,
        backbone=dict(name="resnet", variant=VARIANTS[options.backbone]),
    )
    config.loss = dict()
    config.test = dict(
        split=common.valid_split(options.dataset), size=_CANVAS, top=24,
    )  # fmt: skip
    common.set_fields(config, PRESETS[options.preset])
    if options.plus:
        common.set_fields(config, dict(model=PLUS))
    config.init_fresh = NEW
    config.optimizer = dict(
        kind="adam", learning_rate=2e-4, weight_decay=1e-4, rates=FROZEN
    )
    return config


def _steps(options: ConfigDict) -> int:
    """Returns the number of updates in 150 epochs, or in 300 epochs of OVIS."""
    if options.dataset == "ovis":
        return 300 * (_OVIS_VIDEOS // 4)
    # The paper has 633 updates per epoch, more than one pass over the videos.
    return 150 * (633 if options.preset == "paper" else _VIDEOS // 4)


recipe = common.recipes(
    full_size,
    backbone="r50",
    dataset="ytvis2019",
    plus=False,
    preset="chosen",
    frames=0,
)
get_config = recipe()

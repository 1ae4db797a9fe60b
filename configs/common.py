"""Helpers for recipes: string arguments, data sets, smallest sizes.

A config states what differs from the defaults of the library; `python -m vis_jax.main
config --config FILE` prints all fields with their meaning and range.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.smallest import SMALL

HELD_OUT_SHARE = 0.2  # fraction of the videos of a user's own folder

Value = str | int | float | bool  # value in a string argument
GetConfig = Callable[[str | None], ConfigDict]


def parse_arg(arg: str | None, **defaults: Value) -> ConfigDict:
    """Reads `--config file.py:name=value,flag` into a ConfigDict of `defaults`.

    Args:
      arg: the text after the colon: comma-separated `name=value`; a bare name means
        True.
      **defaults: the names allowed, with a value that gives the type.

    Raises:
      ValueError: a name is unknown or a value has another type.
    """
    out = ConfigDict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, _, text = item.partition("=")
        if name not in defaults:
            raise ValueError(
                f"config argument {name!r}: expected one of {sorted(defaults)}"
            )
        out[name] = _parse_value(name, text, defaults[name])
    return out


def _parse_value(name: str, text: str, default: Value) -> Value:
    if isinstance(default, bool):
        if text.lower() not in ("", "true", "false"):
            raise ValueError(
                f"config argument {name}: expected true or false: {text!r}"
            )
        return text.lower() != "false"
    try:
        return type(default)(text)
    except ValueError as error:
        kind = type(default).__name__
        raise ValueError(
            f"config argument {name}: expected {kind}, got {text!r}"
        ) from error


def recipes(
    full_size: Callable[[ConfigDict], ConfigDict], **defaults: Value
) -> Callable[..., GetConfig]:
    """Returns the function that makes the `get_config` of each recipe of a method.

    Its arguments replace defaults of the string argument. Every recipe also has the
    argument `debug`.

    Args:
      full_size: makes the config for given values of the string argument.
      **defaults: default values of the string argument.
    """

    def recipe(**given: Value) -> GetConfig:
        def get_config(arg: str | None = None) -> ConfigDict:
            """Returns the config; `arg` is the text after the colon in --config."""
            options = parse_arg(arg, **{**defaults, "debug": False, **given})
            config = full_size(options)
            return shrink(config) if options.debug else config

        return get_config

    return recipe


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises ValueError unless an argument is one of the choices."""
    if value not in choices:
        raise ValueError(
            f"config argument {name}: expected one of {', '.join(choices)}, got"
            f" {value!r}"
        )


# Number of classes of each data set; 0 for a user's own folder, whose file sets
# model.num_classes.
NUM_CLASSES = {
    "ytvis2019": 40,
    "ytvis2021": 40,
    "ytvis2022": 40,
    "ovis": 25,
    "coco": 80,
    "moving_shapes": 8,
    "folder": 0,
}


def num_classes(dataset: str) -> int:
    """Returns the number of classes of a data set; 0 = as many as its file lists.

    Raises:
      ValueError: the data set is unknown.
    """
    check_choice("dataset", dataset, NUM_CLASSES)
    return NUM_CLASSES[dataset]


def valid_split(dataset: str) -> str:
    """Returns the name of a data set's validation split."""
    names = {"moving_shapes": "val", "coco": "val2017", "folder": "held_out"}
    return names.get(dataset, "valid")


# Weight decay of Mask2Former: none on norms, on the tables of the mask decoder and on
# Swin's table of relative positions. The pixel decoder's level vectors do decay. It is
# one rule, as each must match something, and only some models have these tables.
NO_DECAY_ON_NORMS_AND_TABLES = (
    (".*norm.*|decoder/tables/.*|.*relative_position_bias_table", 0.0),
    (".*", 1.0),
)


# Annotated frames of the training videos, estimated as videos times mean frames per
# video; for OVIS, 12.77 s at five frames per second. Schedules in epochs are computed
# from them; --dry_run prints the epochs of the actual videos.
TRAIN_FRAMES = {
    "ytvis2019": 61_800,  # 2,238 x 27.6
    "ytvis2021": 90_100,  # 2,985 x 30.2
    "ytvis2022": 90_100,  # the training videos of 2021
    "ovis": 38_800,  # 607 x 63.9
    "coco": 118_287,  # images of train2017, each a video of one frame
    "moving_shapes": 48_000,  # 2,000 x 24
    "folder": 61_800,  # unknown: the value of YouTube-VIS 2019
}


def clips(
    arg: ConfigDict, *, frame_range: int, short_side: tuple[int, ...]
) -> ConfigDict:
    """Returns the clip settings for training on videos with large frames.

    Args:
      arg: `dataset` and `frames` of the config's string argument.
      frame_range: frames of a clip lie at most this far from its key frame.
      short_side: pixels; one is drawn for each clip.
    """
    tall = max(short_side)
    return ConfigDict(
        dict(
            name=arg.dataset,
            # Moving shapes are drawn, not read.
            root="" if arg.dataset == "moving_shapes" else f"data/{arg.dataset}",
            split="train2017" if arg.dataset == "coco" else "train",
            held_out_share=HELD_OUT_SHARE if arg.dataset == "folder" else 0.0,
            frames=arg.frames,
            frame_range=frame_range,
            short_side=short_side,
            # Room for 16:9 at the largest short side, in multiples of 32 pixels.
            canvas=(-(-tall // 32) * 32, -(-tall * 16 // 9 // 32) * 32),
            shapes=dict(
                height=360, width=640, length=24, difficulty="hard", num_videos=2_000
            ),
        )
    )


def shrink(config: ConfigDict) -> ConfigDict:
    """Shrinks a config to the smallest size that still trains, on moving shapes.

    Every part of the model stays, thin and shallow; a run takes about a minute on any
    CPU. Only data, sizes and steps are replaced; a config that reads the user's own
    folder still does.
    """
    own = config.data.name == "folder"
    shapes = dict(name="moving_shapes", root="", split="train", held_out=())
    source = {} if own else shapes
    classes = {} if own else dict(num_classes=NUM_CLASSES["moving_shapes"])
    split = config.test.split if own else "val"
    steps = config.get("optimizer", {}).get("schedule", "step") == "step"
    small = dict(
        num_steps=4,
        compute_dtype="float32",
        init_from="",
        data=dict(
            frames=2, frame_range=3, short_side=(64,), long_side=1333, canvas=(64, 96),
            instances=4, batch_size=2, joint=dict(root=""), stills=dict(share=0.0),
            shapes=dict(height=64, width=96, length=4, difficulty="easy", num_videos=2),
            **source,
        ),
        model=dict(backbone=dict(variant="thin"), **classes),
        test=dict(
            videos=2, short_side=64, long_side=1333, split=split, frame_buckets=(4, 8),
            chunk=4,
        ),
        optimizer=dict(
            warmup_steps=0, warmup_factor=0.0, decay_at=(3,) if steps else ()
        ),
        train=dict(log_every=1, checkpoint_every=2, image_every=0),
    )  # fmt: skip
    patch = config.model.backbone.get("patch", 16)
    if config.model.backbone.name == "swin":
        config.model.backbone.window = 4
    if "track_head" in config.model:  # optional in some detectors
        config.model.track_head.width = 32
    for changes in (small, SMALL[config.system]):
        set_fields(config, changes)
    if patch == 14:  # sides of frames must be multiples of 28 pixels
        config.data.update(short_side=(56,), canvas=(56, 84))
        config.data.shapes.update(height=56, width=84)
        config.model.backbone.patch = patch
    return config


def small_detector(system: str, options: ConfigDict, **data: Any) -> ConfigDict:
    """Returns the settings common to small detectors on moving shapes.

    Args:
      system: name of the system.
      options: has `difficulty` and `steps`.
      **data: further fields of `data`.
    """
    config = ConfigDict(dict(system=system, num_steps=options.steps))
    config.data = dict(
        name="moving_shapes", short_side=(96,), canvas=(96, 160), instances=10,
        colour=0.1,
        shapes=dict(length=12, difficulty=options.difficulty, num_videos=20_000),
        **data,
    )  # fmt: skip
    config.model = dict(
        num_classes=NUM_CLASSES["moving_shapes"],
        backbone=dict(name="resnet", variant="thin", norm="group"),
        fpn=dict(dim=64),
    )
    config.test = dict(
        split="val", videos=50, short_side=96, top=120, chunk=12,
        frame_buckets=(12, 24, 36), tracks=120,
    )  # fmt: skip
    config.optimizer = dict(
        learning_rate=1e-3, clip_norm=1.0, warmup_steps=100, schedule="cosine",
        decays=NO_DECAY_ON_NORMS_AND_TABLES,
    )  # fmt: skip
    config.train = dict(keep=2, image_every=500)
    return config


# Learning-rate multipliers that freeze the detector.
FROZEN_DETECTOR = (("(backbone|detector)/.*", 0.0), (".*", 1.0))

# `data` for training small track heads: any two frames of a video.
ANY_PAIR: dict[str, Any] = dict(frames=2, frame_range=12, batch_size=8)


def add_track_head(config: ConfigDict, *, width: int) -> None:
    """Adds a track head to a detector's recipe, and trains only the head.

    Args:
      config: config of YOLACT or CondInst, modified in place.
      width: size of the embedding.
    """
    config.model.track_head = dict(width=width)
    set_fields(config, dict(loss=dict(detector=False)))
    config.test.tracker = "mask_track"
    config.init_fresh = ("track_head/.*",)
    config.optimizer.rates = FROZEN_DETECTOR


# `test` for small detectors on a folder of videos with dozens of frames.
LINKED_ON_FOLDER: dict[str, Any] = dict(
    chunk=8, frame_buckets=(32, 64), tracks=300, top=300
)


def put_on_folder(config: ConfigDict, *, instances: int = 8, **test: Any) -> None:
    """Changes a small config from moving shapes to a folder, with held-out videos.

    Args:
      config: config for moving shapes, modified in place.
      instances: maximum number of instances per clip.
      **test: further fields of `test`.
    """
    config.data.update(
        name="folder", held_out_share=HELD_OUT_SHARE, long_side=192, canvas=(96, 192),
        instances=instances,
    )  # fmt: skip
    config.test.update(split=valid_split("folder"), videos=0, long_side=192, **test)
    config.model.num_classes = 0  # as many as the folder has categories


def set_fields(config: ConfigDict, values: Mapping) -> None:
    """Sets nested fields in place, creating missing sections."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            if name not in config:
                config[name] = ConfigDict()
            set_fields(config[name], value)
        else:
            config[name] = value

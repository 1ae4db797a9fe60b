"""What several configs share: string arguments, the clip settings, shrinking."""

from collections.abc import Mapping

from ml_collections import ConfigDict


def parse_arg(arg: str | None, **defaults: str | int | float | bool) -> ConfigDict:
    """Reads `--config file.py:name=value,flag` into a ConfigDict of `defaults`.

    Args:
      arg: what follows the colon: comma-separated `name=value`; a bare name means True.
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


def _parse_value(name: str, text: str, default: str | int | float | bool):
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


# Classes of the data sets with a fixed list; a folder of the user's sets
# model.num_classes itself.
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
    """Classes of a data set; 0 = those that its file lists.

    Raises:
      ValueError: it is unknown.
    """
    if dataset not in NUM_CLASSES:
        known = ", ".join(NUM_CLASSES)
        raise ValueError(
            f"config argument dataset: expected one of {known}, got {dataset!r}"
        )
    return NUM_CLASSES[dataset]


def valid_split(dataset: str) -> str:
    """The name that a data set has for the videos to evaluate on."""
    return {"moving_shapes": "val", "coco": "val2017"}.get(dataset, "valid")


# Weight decay of Mask2Former: none on norms, on the tables of the mask decoder and on
# Swin's table of relative positions. The pixel decoder's level vectors do decay.
NO_DECAY_ON_NORMS_AND_TABLES = (
    (".*norm.*", 0.0),
    ("decoder/tables/.*", 0.0),
    (".*relative_position_bias_table", 0.0),
    (".*", 1.0),
)


# Annotated frames of the training videos, an estimate that was not counted: videos
# times mean frames of each, for OVIS 12.77 s with five frames a second. Schedules in
# epochs are computed from them; --dry_run tells the epochs over the videos at hand.
TRAIN_FRAMES = {
    "ytvis2019": 61_800,  # 2,238 x 27.6
    "ytvis2021": 90_100,  # 2,985 x 30.2
    "ytvis2022": 90_100,  # the training videos of 2021
    "ovis": 38_800,  # 607 x 63.9
    "coco": 118_287,  # images of train2017, each a video of one frame
    "moving_shapes": 48_000,  # 2,000 x 24
    "folder": 61_800,  # not known here: as long as for YouTube-VIS 2019
}


# How instances are found at test time; docs/inference.md.
INFERENCE = dict(
    mode="video",  # the whole video as one clip; or "clip": short ones, linked
    clip_length=5, clip_stride=1,  # frames
    clip_link="siou",  # by soft mask IoU; or "eq4": by the matching cost of training
    clip_instances=50, clip_tracks=50,  # most in a clip, most at a time
    tta=(),  # short sides to average over, short_side among them; () = no average
)  # fmt: skip

# Settings of every tracker (test.tracker chooses one): those of the YouTube-VIS paper
# and, where it says nothing, of the code released with it; each tracker's Settings
# explain them. detection, iou and category are alpha, beta and gamma of its Eq. 3.
_CUES = dict(detection=1.0, iou=2.0, category=10.0)
TRACKERS = dict(
    mask_track=dict(**_CUES, category_of_new=True, refresh_labels=False),
    iou=dict(
        **_CUES, min_iou=0.3, filter_first=False, losers="dropped",
        refresh_labels=False,
    ),
    deep_sort=dict(
        **_CUES, matching="score", look=2.0, min_score=0.0, max_cosine_distance=0.2,
        max_iou_distance=0.7, max_age=1_000_000, n_init=1, budget=100,
        show_tentative=True,
    ),
    seq=dict(**_CUES, min_iou=0.3, min_length=8),
    osmn=dict(
        **_CUES, min_iou=0.3, filter_first=False, losers="dropped",
        refresh_labels=False, overlap="box", guide="first", chunk=4,
    ),
    osmn_masks=dict(min_iou=0.3, mask_stride=4, chunk=4),
)  # fmt: skip


# Images of COCO to train on with the videos, set in motion; docs/data.md. Categories
# are matched by name; these are the names that differ. "" leaves one out: the mouse of
# COCO has a cable.
COCO_NAMES = (
    ("car", "sedan"), ("motorcycle", "motorbike"), ("frisbee", "flying_disc"),
    ("car", "Vehical"), ("bus", "Vehical"), ("truck", "Vehical"), ("mouse", ""),
)  # fmt: skip
STILLS = dict(
    root="", split="train2017", share=0.0,  # of the clips; 0 = none
    zoom=(0.5, 1.0), angle=15.0,  # share of the largest view; degrees to either side
    names=COCO_NAMES,
)  # fmt: skip


def clips(
    arg: ConfigDict, *, frame_range: int, short_side: tuple[int, ...]
) -> ConfigDict:
    """Clip settings for training on a data set of videos with large frames.

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
            held_out=(),  # names of videos kept for evaluation
            stills=STILLS,
            loader="tf",  # "numpy" needs no TensorFlow; moving shapes only
            frames=arg.frames,
            frame_range=frame_range,
            short_side=short_side,
            long_side=1333,
            # Room for 16:9 at the largest short side, in multiples of 32 pixels.
            canvas=(-(-tall // 32) * 32, -(-tall * 16 // 9 // 32) * 32),
            instances=20,  # slots; OVIS has up to this many in a clip
            crop=None,
            flip=0.5,
            colour=0.0,
            batch_size=16,  # clips, over all devices
            shapes=dict(
                height=360, width=640, length=24, difficulty="hard", num_videos=2_000
            ),
        )
    )


# The least sizes of the parts of a model that still train.
_SMALL: dict[str, Mapping] = dict(
    pixel_decoder=dict(dim=32, layers=1, heads=4, mlp_dim=64),
    mask_decoder=dict(dim=32, layers=2, heads=4, queries=8, mlp_dim=64),
    fpn=dict(dim=16),
    rpn=dict(dim=16, sampled=16, proposals=16),
    regions=dict(sampled=16, positives=4),
    box_head=dict(width=32),
    mask_head=dict(dim=16, convs=1),
    track_head=dict(width=32),
    osmn=dict(
        widths=(4, 4, 8, 8, 8), depths=(1, 1, 1, 1, 1), hidden=8, side_width=4,
        guide_side=32,
    ),
)  # fmt: skip


def shrink(config: ConfigDict) -> ConfigDict:
    """The same system at the least size that still trains, on moving shapes.

    Every part of the model stays, thin and shallow; a run takes about a minute on any
    CPU. It replaces what the config says of data, sizes and steps, nothing else.
    """
    config.num_steps = 4
    config.compute_dtype = "float32"
    config.init_from = ""
    if "stills" in config.data:
        config.data.stills.share = 0.0
    config.data.update(
        name="moving_shapes", root="", held_out=(), frames=2, frame_range=3,
        short_side=(64,), long_side=1333, canvas=(64, 96), instances=4,
        batch_size=2,
        shapes=dict(height=64, width=96, length=4, difficulty="easy", num_videos=2),
    )  # fmt: skip
    config.test.update(
        videos=2, short_side=64, long_side=1333, split="val", frame_buckets=(4, 8),
        chunk=4,
    )  # fmt: skip
    config.test.update(clip_length=3, clip_stride=1, clip_instances=4, clip_tracks=6)
    config.train.update(log_every=1, checkpoint_every=2, image_every=0)
    config.optimizer.update(warmup_steps=0, decay_at=(3,))
    model = config.model
    model.num_classes = NUM_CLASSES["moving_shapes"]
    model.backbone.update(variant="thin")
    if model.backbone.name == "swin":
        model.backbone.window = 4
    _update_present(model, _SMALL)
    _update_present(config, dict(test=dict(objects=4, tracks=8), loss=dict(points=64)))
    return config


def _update_present(config: ConfigDict, values: Mapping[str, Mapping]) -> None:
    """Sets those of the fields that the config has, part by part."""
    for part, fields in values.items():
        for name, value in fields.items():
            if part in config and name in config[part]:
                config[part][name] = value

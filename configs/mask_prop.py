"""MaskProp with a ResNet or ResNeXt. Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/mask_prop.py:backbone=x101,deform \\
           --workdir runs/mask_prop --config.data.root=/data/ytvis2019 \\
           --config.init_from=weights/coco_htc_x101_dcn
Smoke: the same with --config configs/mask_prop.py:debug (any CPU)

`backbone`, `deform` and `dataset` as for configs/cascade.py, whose schedule it has. It
starts from a run of that recipe or from converted weights; the propagation and
refinement of masks are new. Add --config.init_fresh "()" to continue from a run of
MaskProp.

With `track` the head of MaskTrack R-CNN is trained as well, so that one model serves
the rows of Table 3, which differ in `test.propagation`: deform, flow, iou, track_head.
Start from a run or conversion of configs/cascade.py with `track`, or add
"track_head/.*" to --config.init_fresh. With `stsn` the features of a frame are enriched
by those of other frames before detection (`model.temporal`), as in the backbone of the
paper's best rows; the trackers `iou` and `track_head` are refused with it. OpenImages
can be added as stills if it is converted to the layout of COCO (docs/data.md). The
files mask_prop_r50.py, mask_prop_r101.py and mask_prop_x101.py are these variants.

Rows of the paper, each on one trained model, but for Table 4:
  Table 3  test.propagation
  Table 4  backbone; the paper's X-101 is deformable in the text, not in the table; the
           last row: backbone=x101,deform,stsn
  Fig. 6   test.radius, T: clips of 2 T + 1 frames
  5.2      test.refine=False

Deviations: see configs/cascade.py. Training frames are at most 25 frames of the data
set apart, which has every fifth frame of its videos; if the paper means frames of the
original videos, use --config.data.frame_range=5.
"""

from ml_collections import ConfigDict

from configs import cascade, common

# Parts that a cascade lacks.
NEW = ("(propagation|refinement)/.*",)
SAMPLING = ("temporal_./.*",)


def carry_masks(config: ConfigDict) -> None:
    """Turns a cascade's recipe on pairs of frames into one of MaskProp, in place."""
    config.system = "mask_prop"
    if "tracker" in config.test:
        del config.test["tracker"]
    config.init_fresh = NEW


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config, on pairs of frames."""
    options.frames = options.frames or 2
    config = cascade.full_size(options)
    carry_masks(config)
    if options.stsn:
        config.model.temporal = "stsn"
        config.init_fresh += SAMPLING
    return config


recipe = common.recipes(
    full_size,
    backbone="r50",
    deform=False,
    stsn=False,
    dataset="ytvis2019",
    track=False,
    frames=0,
)
get_config = recipe()

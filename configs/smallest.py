"""Smallest sizes of the parts of a model that still train, by system."""

from collections.abc import Mapping

_SMALL_HEADS = dict(
    fpn=dict(dim=16),
    rpn=dict(dim=16, sampled=16, proposals=16),
    regions=dict(sampled=16, positives=4),
    box_head=dict(width=32),
    mask_head=dict(dim=16, convs=1),
)
_RCNN = dict(**_SMALL_HEADS, track_head=dict(width=32))
_SMALL_HAB = dict(stage="res4", dim=16, mlp_dim=32, radius=1, slots=3)
_SMALL_CASCADE = dict(
    **_SMALL_HEADS, semantic=dict(dim=16, convs=1), roi_samples=1,
    stages=dict(  # two, the fewest with a transition from stage to stage
        iou=(0.5, 0.6), centre_std=(0.1, 0.05), side_std=(0.2, 0.1), weight=(1.0, 0.5)
    ),
)  # fmt: skip
_SMALL_DETECTIONS = dict(objects=4, tracks=8)
_SMALL_YOLACT = dict(
    fpn=dict(dim=16),
    prototypes=4,
    priors=dict(
        sides=(15.0, 30.0, 60.0, 120.0, 240.0), ratios=(1.0, 0.5, 2.0),
        divisor=96.0, square=False, image=(64, 96),
    ),
)  # fmt: skip
_SMALL_CONDINST = dict(
    fpn=dict(dim=16), head=dict(convs=1), masks=dict(dim=8, convs=1, channels=4)
)
_FEW_PLACES = dict(ranges=(16.0, 32.0, 64.0, 128.0), positives=16)
SMALL: dict[str, Mapping] = dict(
    ifr=dict(
        model=dict(
            pixel_decoder=dict(dim=32, layers=1, heads=4, mlp_dim=64),
            mask_decoder=dict(dim=32, layers=2, heads=4, queries=8, mlp_dim=64),
        ),
        loss=dict(points=64),
        test=dict(clip_length=3, clip_instances=4, clip_tracks=6),
    ),
    mask_prop=dict(
        model=dict(
            **_SMALL_CASCADE,
            propagation=dict(dim=16, chunk=64),
            refinement=dict(side=16, dim=8, blocks=1),
        ),
        test=dict(objects=4, tracks=12, radius=2),
    ),
    mask_track_rcnn=dict(model=_RCNN, test=_SMALL_DETECTIONS),
    osmn=dict(
        model=dict(
            **_RCNN,
            osmn=dict(
                widths=(4, 4, 8, 8, 8), depths=(1, 1, 1, 1, 1), hidden=8, side_width=4,
                guide_side=32,
            ),
        ),
        test=_SMALL_DETECTIONS,
    ),
    cascade=dict(
        model=_SMALL_CASCADE,
        test=_SMALL_DETECTIONS,
    ),
    condinst=dict(
        model=_SMALL_CONDINST,
        loss=_FEW_PLACES,
        test=dict(**_SMALL_DETECTIONS, candidates=20),
    ),
    iai=dict(
        model=dict(
            **_SMALL_CONDINST,
            ids=dict(count=6),
            hab=_SMALL_HAB,
        ),
        loss=_FEW_PLACES,
        test=dict(objects=4, tracks=8, candidates=20),
    ),
    iai_mask_rcnn=dict(
        model=dict(**_SMALL_HEADS, ids=6, hab=_SMALL_HAB), test=dict(objects=4)
    ),
    videomt=dict(
        data=dict(crop=None, zoom=None),
        model=dict(
            queries=8, decoder=dict(blocks=1),
            backbone=dict(
                patch=16, table=4, dim=None, depth=2, heads=None, remat=False
            ),
        ),
        loss=dict(points=64),
        optimizer=dict(late=()),
    ),
    yolact=dict(
        data=dict(zoom=None),
        model=_SMALL_YOLACT,
        loss=dict(masks=10),
        test=dict(**_SMALL_DETECTIONS, size=()),
    ),
    rgnn_vis=dict(
        data=dict(zoom=None),
        model=dict(
            **_SMALL_YOLACT,
            graph=dict(dim=16, narrow=8, tracks=6),
            appearance=dict(width=16, narrow=8),
            masks=dict(channels=4),
        ),
        loss=dict(stride=4),
        test=dict(objects=4, size=()),
    ),
)  # fmt: skip

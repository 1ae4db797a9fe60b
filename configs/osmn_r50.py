"""OSMN on top of MaskTrack R-CNN's detector, at the published size.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/osmn_r50.py --workdir runs/osmn \\
           --config.init_from runs/mask_track_rcnn_r50 \\
           --config.data.root=/data/ytvis2019
       python -m vis_jax.main compare --workdir runs/osmn
Smoke: python -m vis_jax.main --config configs/osmn_r50.py:debug --workdir runs/debug

`init_from` is a run of configs/mask_track_rcnn_r50.py; its detector is frozen. To start
the trunks from ImageNet, as published, convert first and train from the result:
       python -m vis_jax.main convert --config configs/osmn_r50.py --kind vgg16 \\
           --source vgg16-397923af.pth --output weights/osmn \\
           --config.init_from runs/mask_track_rcnn_r50
       .. --config.init_from weights/osmn --config.init_fresh "()"
`dataset` as for that recipe. The schedule is the authors' for YouTube-VOS; that of the
YouTube-VIS paper is not known.
Deviation: the position of an object comes from the previous frame of the clip, at most
five frames earlier (on average 2.4), and its appearance from one of the three frames of
the clip; the authors use the previous frame and any frame of the video.
Deviation: no weight decay; the authors have an L2 loss of 2e-4 on kernels.
Paper: 27.5 AP on YouTube-VIS 2019 validation, as the tracker.
"""

from ml_collections import ConfigDict

from configs import common, mask_track_rcnn


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, dataset="ytvis2019", debug=False)
    # The same detector as in the other config, whose weights it loads.
    detector = ConfigDict(dict(backbone="r50", dataset=options.dataset, frames=3))
    config = mask_track_rcnn.full_size(detector)
    config.system = "osmn"
    config.num_steps = 300_000
    config.init_fresh = ("osmn/.*",)
    config.data.update(frame_range=5, batch_size=8)
    config.optimizer = dict(
        learning_rate=1e-5, weight_decay=0.0, decay_at=(200_000,),
        rates=(("osmn/.*", 1.0), (".*", 0.0)),
    )  # fmt: skip
    return common.shrink(config) if options.debug else config

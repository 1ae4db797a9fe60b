"""VidEoMT with any size of its transformer, as published.

Results: docs/results.md#published-recipes.

Run:   python -m vis_jax.main --config configs/videomt.py:size=small \\
           --workdir runs/videomt --config.data.root=/data/ytvis2019 \\
           --config.data.stills.root=/data/coco --config.data.stills.share=0.5 \\
           --config.init_from=weights/segmenter
Smoke: the same with --config configs/videomt.py:debug (any CPU, about a minute)

`size` is large, base or small; `form` is dinov2 or dinov3; `patch` is 16 or 14, as in
configs/eomt.py; `dataset` is ytvis2019, ytvis2021, ytvis2022, ovis, folder (classes
from its file) or moving_shapes; `frames` is the number of frames per clip. Half of the
authors' clips are pseudo-clips of COCO images, for which the command names a folder.
Training starts from an image model of the same data, trained with configs/eomt.py;
docs/videomt.md describes the stages.
Paper, on YouTube-VIS 2019, 2021 and OVIS: large 68.6, 63.1 and 52.5 AP; base 58.2 and
small 52.8 on 2019.
"""

from ml_collections import ConfigDict

from configs import common, eomt

# Short sides of the training clips, in pixels.
_SIDES = (320, 352, 392, 416, 448, 480, 512, 544, 576, 608, 640)


def full_size(options: ConfigDict) -> ConfigDict:
    """Returns the published config."""
    short = options.dataset == "ytvis2019" and options.form == "dinov2"
    ovis, long = options.dataset == "ovis", 160_000
    config = ConfigDict(dict(system="videomt", compute_dtype="bfloat16"))
    if short:
        long = 60_000 if options.size == "large" else 40_000
    config.num_steps = long
    config.data = common.clips(options, frame_range=2, short_side=_SIDES)
    config.data.update(
        long_side=768, canvas=eomt.canvas(768, options), crop=(384, 600),
        crop_share=0.5, crop_at=(400, 500, 600), batch_size=8,
        sampling=dict(kind="run"), stills=eomt.stills(options),
    )  # fmt: skip
    config.model = eomt.model(options)
    config.model.propagation = "fusion"
    config.test = dict(
        split=common.valid_split(options.dataset), top=20 if ovis else 10,
        short_side=544 if ovis else 480 if options.form == "dinov3" else 448,
    )  # fmt: skip
    config.optimizer = eomt.optimizer(options, decay=0.6)
    return config


recipe = common.recipes(
    full_size, size="large", form="dinov2", patch=16, dataset="ytvis2019", frames=5
)
get_config = recipe()

"""VidEoMT, small, from scratch on a folder of videos.

Results: docs/results.md#videomt.

Run:   python -m vis_jax.main --config configs/videomt_folder.py \\
           --workdir runs/folder --config.data.root=/data/videos \\
           --config.data.held_out='("dog","boat")'
Smoke: python -m vis_jax.main --config configs/videomt_folder.py:debug \\
           --workdir runs/debug --config.data.root=/data/videos (any CPU)

The folder has JPEGImages/ and instances.json in the YouTube-VIS format; classes come
from the file. It is meant for a few dozen videos and a CPU.
"""

from ml_collections import ConfigDict

from configs import common, videomt_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, propagation="fusion", steps=5_000, debug=False)
    config = videomt_shapes.get_config(
        f"propagation={options.propagation},steps={options.steps}"
    )
    common.put_on_folder(config, chunk=8, frame_buckets=(32, 64))
    config.data.shapes.num_videos = 100
    config.train.update(log_every=50, image_every=0)
    return common.shrink(config) if options.debug else config

"""IFR, small, from scratch on a folder of videos. Results: docs/results.md#real-videos.

Run:   python -m vis_jax.main --config configs/ifr_folder.py --workdir runs/folder \\
           --config.data.root=/data/videos
Smoke: python -m vis_jax.main --config configs/ifr_folder.py:debug --workdir runs/debug
       --config.data.root=/data/videos (any CPU, about a minute)

The folder has JPEGImages/ and instances.json in the YouTube-VIS format, as `data
prepare` writes it; classes come from the file. It is meant for a few dozen videos and a
CPU. A fifth of the videos is held out and evaluated;
--config.data.held_out='("dog","boat")' selects others. A single video cannot be held
out and needs --config.test.split=train.
"""

from ml_collections import ConfigDict

from configs import common, ifr_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, steps=5_000, debug=False)
    config = ifr_shapes.get_config(f"large,steps={options.steps}")
    common.put_on_folder(config, chunk=8, frame_buckets=(32, 64))
    config.data.frame_range = 8
    config.data.shapes.num_videos = 100
    config.loss.points = 192
    config.optimizer.warmup_steps = 100
    config.train.update(log_every=50, image_every=0)
    return common.shrink(config) if options.debug else config

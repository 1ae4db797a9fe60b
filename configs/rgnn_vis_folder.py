"""RGNNVIS, small, on a folder of videos. Results: docs/results.md#rgnnvis.

Run:   python -m vis_jax.main --config configs/yolact_folder.py \\
           --workdir runs/yolact --config.data.root=/data/videos
       python -m vis_jax.main --config configs/rgnn_vis_folder.py \\
           --workdir runs/rgnn_vis --config.init_from=runs/yolact \\
           --config.data.root=/data/videos
Smoke: python -m vis_jax.main --config configs/rgnn_vis_folder.py:debug \\
           --workdir runs/debug --config.data.root=/data/videos (any CPU)

It starts from a YOLACT that configs/yolact_folder.py has trained on the same folder,
and keeps it frozen. `plus` is RGNNVIS++; `preset` as for configs/rgnn_vis.py.
"""

from ml_collections import ConfigDict

from configs import common, rgnn_vis_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(
        arg, steps=1_000, plus=False, preset="chosen", debug=False
    )
    chosen = f"steps={options.steps},plus={options.plus},preset={options.preset}"
    config = rgnn_vis_shapes.get_config(chosen)
    common.put_on_folder(config, chunk=8)
    return common.shrink(config) if options.debug else config

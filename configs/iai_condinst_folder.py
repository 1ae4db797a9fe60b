"""IAI on CondInst, small, from scratch on a folder of videos.

Results: docs/results.md#iai.

Run:   python -m vis_jax.main --config configs/iai_condinst_folder.py \\
           --workdir runs/folder --config.data.root=/data/videos
Smoke: python -m vis_jax.main --config configs/iai_condinst_folder.py:debug \\
           --workdir runs/debug --config.data.root=/data/videos (any CPU)

With `--config.init_from` it starts from a run of configs/iai_condinst_shapes.py; the
layers that depend on the classes are then new, as the classes differ.
"""

from ml_collections import ConfigDict

from configs import common, iai_condinst_shapes


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; `arg` is the text after the colon in --config."""
    options = common.parse_arg(arg, steps=2_000, debug=False)
    config = iai_condinst_shapes.get_config(f"steps={options.steps}")
    common.put_on_folder(config, instances=11)
    config.init_fresh = ("detector/head/class_logits/.*",)
    return common.shrink(config) if options.debug else config

"""Stores the features of a frozen encoder, which training then reads from disk.

Training takes the same settings, and --config.data.features=FOLDER (docs/videomt.md).

examples:
  python -m vis_jax.main data cache_features --config configs/lvmt.py:size=small \\
      --config.data.root=/data/ytvis2019 --config.init_from=weights/dinov2 \\
      --config.data.short_side='(448,)' --config.data.crop_share=0 \\
      --output features
  python -m vis_jax.main data cache_features --output features_b \\
      --config configs/lvmt.py:dataset=moving_shapes,form=dinov3 \\
      --config.init_from=weights/dinov3 --config.data.crop_share=0 --config.data.flip=0
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from vis_jax.commands import parts
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.numbers import short_number

if TYPE_CHECKING:
    from data_pipeline.datasets.dataset import Dataset
    from data_pipeline.settings import Settings as DataSettings
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.systems.system import System
    from vis_jax.training.features import FrameView, StoredFeatures


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    flags.DEFINE_string(
        "output",
        None,
        "folder for the features; an interrupted command resumes there",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Writes the features that the folder lacks."""
    if not values.output:
        raise ValueError("--output: expected a folder, got none")
    config = read_config(values)
    from vis_jax.paths import on_disk
    from vis_jax.settings import read_settings, to_dict

    folder = on_disk("--output", values.output)
    # Checks the settings by the rules of training before anything is computed.
    fields = to_dict(config.data) | {"features": str(folder)}
    data = read_settings(type(config.data), fields, "data")
    _cache(config, data, folder)


def _cache(config: "RunSettings", data: "DataSettings", folder: Path) -> None:
    import jax

    from data_pipeline.datasets.by_name import make_training_set
    from vis_jax.commands.run_settings import with_classes
    from vis_jax.training.features import StoredFeatures, feature_shape

    dataset = make_training_set(data)
    config = with_classes(config, len(dataset.categories))
    system = parts.build_system(config)
    encoder = parts.frozen_encoder(system)
    features = StoredFeatures(folder, encoder, data, dataset.videos)
    shape = feature_shape(encoder, parts.shapes_of(system), data.canvas)
    todo = features.missing()
    _check_space(features, todo, dataset, shape, folder)
    variables = _variables(config, system)
    features.begin(variables["params"])
    encode = jax.jit(encoder.encode)
    clips = _clips(dataset, data, todo)
    for index, view in todo:
        length, inside = dataset.videos[index].length, features.inside(view.size)
        array_shape = (length, shape[0], int(inside.sum()), shape[2])
        with features.writing(index, view, array_shape) as out:
            for start in range(0, length, data.frames):
                clip = next(clips)
                images, sizes = clip["images"][0], clip["sizes"]
                sizes = np.repeat(sizes, len(images), axis=0)
                found = np.asarray(encode(variables, images, sizes))
                rows = out[start : start + data.frames]
                rows[:] = found[: len(rows)][:, :, inside]
    print(f"features      {folder}: {len(todo)} files written")


def _clips(
    dataset: "Dataset", data: "DataSettings", todo: "list[tuple[int, FrameView]]"
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the frames of each video and view, in clips of training size."""
    from data_pipeline.clip_sampling import ClipPlan
    from data_pipeline.pipeline import planned_clips

    plans = []
    for index, view in todo:
        video = dataset.videos[index]
        for start in range(0, video.length, data.frames):
            ids = np.arange(start, min(start + data.frames, video.length))
            plans.append(
                ClipPlan(
                    index, ids.astype(np.int32), (0, 0, video.height, video.width),
                    min(view.size), view.size, np.full(data.frames, view.flip),
                    (1.0, 1.0, 1.0),
                )
            )  # fmt: skip
    return planned_clips(dataset, data, plans)


def _variables(config: "RunSettings", system: "System") -> dict:
    """Returns the variables that training starts from."""
    import jax

    from vis_jax.training.dry_run import batch_shapes
    from vis_jax.training.initial import load_initial

    height, width = config.data.canvas
    shapes = batch_shapes(B=1, T=1, M=1, H=height, W=width)
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    init = jax.jit(lambda key, batch: dict(system.init(key, batch)))
    variables = init(jax.random.key(config.seed), batch)
    if config.init_from:
        fresh = config.init_fresh
        variables = load_initial(config.init_from, variables, fresh=fresh)
    return variables


def _check_space(
    features: "StoredFeatures",
    todo: "list[tuple[int, FrameView]]",
    dataset: "Dataset",
    shape: tuple[int, int, int],
    folder: Path,
) -> None:
    """Prints the size of the features; raises ValueError if the disk is too small."""
    needed = sum(
        2 * dataset.videos[index].length * shape[0] * shape[2]
        * int(features.inside(view.size).sum())
        for index, view in todo
    )  # fmt: skip
    existing = next(
        path for path in (folder, *folder.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(existing).free
    print(
        f"features      {len(todo)} views of {len({index for index, _ in todo})} videos"
        f" to write, {short_number(needed)}B; {short_number(free)}B are free"
    )
    if needed > free:
        raise ValueError(
            f"--output: expected {short_number(needed)}B of free space, got"
            f" {short_number(free)}B; fewer values of data.short_side, or data.flip=0,"
            " make fewer views"
        )

"""Builds the parts of a run from its config and workdir."""

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epath

from data_pipeline.errors import is_name
from vis_jax.checkpoints import find_weights, shipped
from vis_jax.paths import write_atomically

if TYPE_CHECKING:
    from absl import flags

    from data_pipeline.datasets.dataset import Category
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.systems.system import Encoder, System

CATEGORIES_FILE, CACHE_FOLDER = "categories.json", "compilation_cache"
# Flags of the commands that run a trained model.
MODEL_FLAGS = {
    "workdir": "folder of a training run, which has config, classes and checkpoint;"
    " without it, they come from --checkpoint",
    "checkpoint": "folder of a checkpoint, or weights by name, such as shapes;"
    " default: the newest of --workdir",
}


def build_system(run: "RunSettings") -> "System":
    """Builds the system of a run.

    Raises:
      ValueError: settings are inconsistent.
    """
    from vis_jax.systems import SYSTEMS

    return SYSTEMS[run.system].build(run)


def frozen_encoder(system: "System") -> "Encoder":
    """Returns the encoder whose features can be stored.

    Raises:
      ValueError: the system has none.
    """
    if system.encoder is None:
        raise ValueError(
            "data.features: expected none, as this system has no frozen encoder; PMT"
            " and LVMT have one (system videomt with model.decoder.kind 'own')"
        )
    return system.encoder


def load_model(system: "System", checkpoint: str) -> dict:
    """Loads the variables of a checkpoint and checks them against the system.

    Raises:
      ValueError: there is no checkpoint, or it is from another model, or not finite.
    """
    from vis_jax.training.checkpoint import load_variables
    from vis_jax.training.tree_check import check_finite, check_same_tree

    shapes, name = shapes_of(system), f"checkpoint {checkpoint}"

    def check(found: dict) -> None:
        check_same_tree(found, shapes, name=name)

    variables = load_variables(checkpoint, check)
    check_finite(variables, name=name)
    return variables


def check_variables(system: "System", variables: dict, name: str) -> None:
    """Raises ValueError unless the variables match the system.

    Args:
      system: system from `build_system`.
      variables: by name.
      name: name of the source, for the message.
    """
    from vis_jax.training.tree_check import check_same_tree

    check_same_tree(variables, shapes_of(system), name=name)


def shapes_of(system: "System") -> dict:
    """Returns the variables of a system as shapes."""
    import jax

    from vis_jax.training.dry_run import batch_shapes

    # Parameters do not depend on the batch size, so the smallest batch will do.
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return dict(jax.eval_shape(system.init, key, batch))


def write_categories(workdir: epath.PathLike, categories: Sequence) -> None:
    """Writes the classes of a model into its folder, for `predict`.

    Raises:
      ValueError: the folder belongs to a run with other classes.
    """
    path = epath.Path(workdir) / CATEGORIES_FILE
    if path.exists():
        check_categories(path, read_categories(workdir), categories)
        return
    rows = [{"id": one.category_id, "name": one.name} for one in categories]
    write_atomically(path, json.dumps(rows, indent=1) + "\n")


def read_categories(workdir: epath.PathLike) -> list[tuple[int, str]]:
    """Reads the (category id, name) of labels 0, 1, ..

    Raises:
      ValueError: the file is missing or not as written by `write_categories`.
    """
    from vis_jax.commands.config_file import read_json

    path = epath.Path(workdir) / CATEGORIES_FILE
    rows = read_json(path)
    try:
        found = [(row["id"], row["name"]) for row in rows]
    except (KeyError, TypeError):
        found = []
    fits = all(type(number) is int and is_name(name) for number, name in found)
    if not found or not fits or len({number for number, _ in found}) < len(found):
        expected = "a list of id, each once, and name, on one line"
        raise ValueError(f"{path}: expected {expected}, got {rows!r:.99}")
    return found


def checkpoint_of(values: "flags.FlagValues") -> str:
    """Returns the path of the model in --checkpoint or, without it, in --workdir.

    Raises:
      ValueError: neither is given, or --checkpoint is no path and no name.
    """
    if values.checkpoint:
        return find_weights(values.checkpoint)
    if not values.workdir:
        raise ValueError(
            "--checkpoint: expected a checkpoint, weights by name"
            f" ({', '.join(shipped())}) or --workdir, got none"
        )
    return find_weights(epath.Path(values.workdir))


def read_classes(workdir: str | None, checkpoint: str) -> list[tuple[int, str]]:
    """Reads the (category id, name) of labels 0, 1, .. of a model.

    Args:
      workdir: folder of a run; None: they are around the checkpoint.
      checkpoint: path from `checkpoint_of`.

    Raises:
      ValueError: see `read_categories`.
    """
    from vis_jax.commands.config_file import find_around

    if workdir:
        return read_categories(workdir)
    found = find_around(checkpoint, CATEGORIES_FILE)
    return read_categories(checkpoint if found is None else found.parent)


def annotated_categories(path: str) -> "tuple[Category, ...]":
    """Reads the classes of an annotation file in label order.

    Raises:
      ValueError: it is missing or damaged.
    """
    from data_pipeline.datasets.dataset import Category
    from vis_jax.formats.truth_json import load_videos

    return tuple(
        Category(int(number), name)
        for number, name in sorted(load_videos(path).categories.items())
    )


def check_categories(
    place: epath.PathLike | str, found: Sequence[tuple[int, str]], categories: Sequence
) -> None:
    """Raises ValueError unless both have the same classes in the same order."""
    expected = [(one.category_id, one.name) for one in categories]
    if found != expected:
        pairs = zip([*found, None], [*expected, None], strict=False)
        other = next(pair for pair in pairs if pair[0] != pair[1])
        raise ValueError(
            f"{place}: expected the categories of the training data, such as"
            f" {other[1]}, got {other[0]}"
        )


def keep_compilations(workdir: epath.PathLike | None) -> None:
    """Caches compiled programs in the folder of a run.

    JAX_COMPILATION_CACHE_DIR takes precedence; empty disables the cache.
    """
    if workdir is not None:
        _keep_compilations(epath.Path(workdir) / CACHE_FOLDER)


def keep_user_compilations() -> None:
    """Like `keep_compilations`, in the user's cache folder, shared by all runs.

    That is vis_jax/compilations in $XDG_CACHE_HOME, or in ~/.cache.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a path that is not absolute is ignored.
    folder = epath.Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache"))
    _keep_compilations(folder / "vis_jax" / "compilations")


def _keep_compilations(folder: epath.Path) -> None:
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # With XLA's own caches the folder name is part of the key, so a run that is moved
    # or addressed by another path would recompile.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")

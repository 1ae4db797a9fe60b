"""The parts of a run that a config and a workdir describe."""

import json
import os
from collections.abc import Sequence

from etils import epath
from ml_collections import ConfigDict

from vis_jax.commands.config_flag import read_json

CATEGORIES_FILE, CACHE_FOLDER = "categories.json", "compilation_cache"


def set_classes(config: ConfigDict, count: int) -> None:
    """Takes the number of classes from the data set where the config leaves it open.

    Raises:
      ValueError: the config has another number.
    """
    if config.model.num_classes == 0:
        config.model.num_classes = count
    if config.model.num_classes != count:
        raise ValueError(
            f"model.num_classes: expected {count}, the categories of the data set,"
            f" got {config.model.num_classes}"
        )


def check_test(test: ConfigDict) -> None:
    """Raises ValueError unless the settings of inference are numbers that can be."""
    least = {"videos": 0, "short_side": 1, "long_side": 1, "top": 1, "chunk": 1}
    for name in least.keys() & test.keys():
        if not isinstance(test[name], int) or test[name] < least[name]:
            raise ValueError(
                f"test.{name}: expected a whole number of at least {least[name]}, got"
                f" {test[name]!r}"
            )
    sizes = test.get("frame_buckets", (1,))
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"test.frame_buckets: expected whole numbers, got {sizes!r}")


def build_system(config: ConfigDict):
    """The system a config names.

    Raises:
      ValueError: there is none of that name, or a setting of it cannot be.
    """
    from vis_jax.systems import SYSTEMS

    if config.system not in SYSTEMS:
        known = sorted(SYSTEMS)
        raise ValueError(f"system: expected one of {known}, got {config.system!r}")
    return SYSTEMS[config.system](config)


def load_model(system, checkpoint: str) -> dict:
    """The variables of a checkpoint, checked against the system.

    Raises:
      ValueError: there is no checkpoint, or it is of another model.
    """
    import jax

    from vis_jax.train.checkpoint import load_variables
    from vis_jax.train.dry_run import batch_shapes
    from vis_jax.train.tree_check import check_same_tree

    # Parameters do not depend on the sizes of a batch: the least one will do.
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    key = jax.eval_shape(lambda: jax.random.key(0))
    expected = jax.eval_shape(system.init, key, batch)
    variables = load_variables(checkpoint)
    check_same_tree(variables, expected, name=f"checkpoint {checkpoint}")
    return variables


def write_categories(workdir: epath.PathLike, categories: Sequence) -> None:
    """Writes the classes of a model beside it, for `predict`.

    Raises:
      ValueError: the folder is of a run with other classes.
    """
    folder = epath.Path(workdir)
    path = folder / CATEGORIES_FILE
    if path.exists():
        check_categories(path, read_categories(workdir), categories)
        return
    rows = [{"id": one.category_id, "name": one.name} for one in categories]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{CATEGORIES_FILE}.tmp"
    temporary.write_text(json.dumps(rows, indent=1) + "\n")
    temporary.replace(path)


def read_categories(workdir: epath.PathLike) -> list[tuple[int, str]]:
    """The (category id, name) of labels 0, 1, ..

    Raises:
      ValueError: the file is missing or not as `write_categories` leaves it.
    """
    path = epath.Path(workdir) / CATEGORIES_FILE
    rows = read_json(path)
    try:
        found = [(int(row["id"]), str(row["name"])) for row in rows]
    except (KeyError, TypeError, ValueError):
        found = []
    if not found:
        raise ValueError(f"{path}: expected a list of id and name, got {rows!r:.99}")
    return found


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
    """Keeps compiled programs in a run's folder: next time they are read from there.

    JAX_COMPILATION_CACHE_DIR wins over it, empty for no cache.
    """
    import jax

    if workdir is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = epath.Path(workdir) / CACHE_FOLDER
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # With XLA's own caches the name of the folder is part of the key: a run that is
    # moved, or named by another path, would compile again.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")

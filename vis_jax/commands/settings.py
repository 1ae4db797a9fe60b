"""Configs on the command line, and the parts of a run they describe."""

import json
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

CONFIG_FILE, CATEGORIES_FILE = "config.json", "categories.json"


def define_config(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds --config: a Python file, or by default the config of --workdir."""
    text = "Python file with get_config(), as configs/ifr_shapes.py or the same with"
    text += " :name=value,.. behind it; --config.a.b=v overrides a field."
    saved = _saved_config(arguments)
    if saved is not None and not any(a.split("=")[0] == "--config" for a in arguments):
        config_flags.DEFINE_config_dict(
            "config", saved, text, flag_values=values, sys_argv=arguments
        )
        return
    config_flags.DEFINE_config_file(
        "config", None, text, flag_values=values, sys_argv=arguments
    )


def read_config(values: flags.FlagValues) -> ConfigDict:
    """The config of the command line.

    Raises:
      ValueError: neither --config nor a workdir with a config was given.
    """
    if values.config is None:
        raise ValueError(
            "--config: expected a file such as configs/ifr_shapes.py, or --workdir with"
            f" a {CONFIG_FILE}"
        )
    return values.config


def _saved_config(arguments: list[str]) -> ConfigDict | None:
    """The config that a training run left in --workdir, if there is one."""
    workdir = _argument(arguments, "--workdir")
    path = Path(workdir or "") / CONFIG_FILE
    if workdir is None or not path.is_file():
        return None
    return ConfigDict(_tuples(read_json(path)))


def _argument(arguments: list[str], name: str) -> str | None:
    for index, argument in enumerate(arguments):
        head, sign, value = argument.partition("=")
        if head == name and sign:
            return value
        if head == name and index + 1 < len(arguments):
            return arguments[index + 1]
    return None


def _tuples(value):
    """JSON has no tuples; configs use them for every sequence."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def read_json(path: Path):
    """The content of a JSON file.

    Raises:
      ValueError: it is missing or cut; names it.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from error


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

    from vis_jax.structures import Batch
    from vis_jax.train.checkpoint import load_variables
    from vis_jax.train.tree_check import check_same_tree

    shapes = dict(
        images=((1, 1, 64, 64, 3), "uint8"),
        frame_valid=((1, 1), bool),
        sizes=((1, 2), "int32"),
        masks=((1, 1, 1, 64, 64), bool),
        boxes=((1, 1, 1, 4), "float32"),
        present=((1, 1, 1), bool),
        labels=((1, 1), "int32"),
        track_ids=((1, 1), "int32"),
        instance_valid=((1, 1), bool),
    )  # of the least batch: parameters do not depend on its sizes
    batch = Batch(**{k: jax.ShapeDtypeStruct(*shape) for k, shape in shapes.items()})
    expected = jax.eval_shape(system.init, jax.random.key(0), batch)
    variables = load_variables(checkpoint)
    check_same_tree(variables, expected, name=f"checkpoint {checkpoint}")
    return variables


def write_categories(path: Path, categories) -> None:
    """Writes the classes of a model beside it, for `predict`."""
    from vis_jax.metrics.json_checks import write_json

    rows = [{"id": one.category_id, "name": one.name} for one in categories]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, rows, indent=1)


def read_categories(path: Path) -> list[tuple[int, str]]:
    """The (category id, name) of labels 0, 1, ..

    Raises:
      ValueError: the file is missing or not as `write_categories` leaves it.
    """
    rows = read_json(path)
    try:
        return [(int(row["id"]), str(row["name"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a list of id and name, got {rows}") from error

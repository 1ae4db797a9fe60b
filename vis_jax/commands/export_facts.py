"""Collects facts about a model from its run, for the model card."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etils import epath

from vis_jax.commands.config_file import read_json
from vis_jax.export.card import Facts

if TYPE_CHECKING:
    from vis_jax.commands.saved_model import SavedModel

_EVALUATION, _SCORES = "evaluation", "scores.json"


def facts_of(
    model: "SavedModel", workdir: str | os.PathLike, checkpoint: str | os.PathLike
) -> Facts:
    """Collects the facts about a model.

    Args:
      model: model with the variables of the checkpoint.
      workdir: folder of its run.
      checkpoint: see `vis_jax.training.checkpoint.load_variables`.

    Raises:
      ValueError: a file of scores is damaged; names it.
    """
    from vis_jax.params import flatten

    step, in_run = _step(epath.Path(workdir), epath.Path(checkpoint))
    config = model.config
    leaves: list[Any] = [*flatten(model.variables["params"]).values()]
    return Facts(
        system=config.system,
        parts=[*_parts(config.model)],
        parameters=sum(int(leaf.size) for leaf in leaves),
        classes=[name for _, name in model.categories],
        data=_data(config.data),
        recipe=_recipe(config),
        step=step,
        scores=_scores(epath.Path(workdir), step) if in_run else {},
    )


def _step(workdir: epath.Path, checkpoint: epath.Path) -> tuple[int | None, bool]:
    """Returns the step of a checkpoint, and whether it belongs to this run.

    Steps of another run have the same numbers, but not the same scores.
    """
    from vis_jax.training.best import BEST, RECORD
    from vis_jax.training.checkpoint import FOLDER, step_of

    run, place = workdir.resolve(), checkpoint.resolve()
    if place == run / BEST:
        return _best_step(place / RECORD), True
    in_run = place == run or place.is_relative_to(run / FOLDER)
    return step_of(checkpoint), in_run


def _best_step(record: epath.Path) -> int | None:
    content = read_json(record) if record.exists() else {}
    step = content.get("step") if isinstance(content, dict) else None
    return step if type(step) is int else None


def _parts(model: Any) -> Iterator[tuple[str, str]]:
    backbone = getattr(model, "backbone", None)
    if backbone is not None:
        name, variant = (getattr(backbone, x, "") for x in ("name", "variant"))
        yield "backbone", f"{name} {variant}".strip()


def _data(data: Any) -> str:
    """Names the training data, without local paths."""
    words = [data.name]
    words += ["images of COCO"] if data.stills.root else []
    words += ["a second set of videos"] if data.joint.root else []
    return " and ".join(words)


def _recipe(config: Any) -> list[tuple[str, str]]:
    optimizer = config.optimizer
    sides = ", ".join(str(side) for side in config.data.short_side)
    return [
        ("clip", f"{config.data.frames} frames, short side {sides} pixels"),
        ("clips of an update", str(config.data.batch_size)),
        ("optimiser", f"{optimizer.kind}, learning rate {optimizer.learning_rate:g}"),
        ("updates of the recipe", str(config.num_steps)),
        ("compute dtype", str(config.compute_dtype)),
    ]


def _scores(workdir: epath.Path, step: int | None) -> dict[str, dict[str, float]]:
    """Reads the metrics of a step by evaluation name."""
    folder = workdir / _EVALUATION
    if step is None or not folder.is_dir():
        return {}
    found = {}
    places = {"test": folder} | {one.name: one for one in sorted(folder.iterdir())}
    for name, place in places.items():
        path = place / f"step_{step}" / _SCORES
        if path.exists():
            content = read_json(path)
            if not isinstance(content, dict):
                raise ValueError(f"{path}: expected metrics by name")
            found[name] = {
                metric: float(value)
                for metric, value in content.items()
                if isinstance(value, int | float)
            }
    return found

"""Loads a model, as weights that vis_jax runs or as programs that JAX runs.

Programs need neither Flax nor TensorFlow nor a config, so what they do not need is
imported only for weights.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from vis_jax.commands import parts
from vis_jax.commands.stored_programs import StoredModel, read_stored
from vis_jax.paths import check_folder
from vis_jax.predict.loop import Finder
from vis_jax.tracking import Tracker
from vis_jax.training.model_folder import kind_of, no_weights

if TYPE_CHECKING:
    from vis_jax.api import Model


def load(
    path: str | os.PathLike,
    settings: Mapping[str, Any] | None = None,
    *,
    config: str | os.PathLike | Mapping | None = None,
    categories: str | os.PathLike | Sequence[str] | None = None,
    **test: Any,
) -> "Model | ProgramModel":
    """Loads a trained model.

    Compiled programs are kept in the user's cache folder, vis_jax/compilations, unless
    JAX has another one already.

    Args:
      path: the folder of a training run, whose newest checkpoint is read; of one of its
        checkpoints; of the output of `convert` or `export`; or in the layout of a model
        hub, with config.json, categories.json and model.safetensors.
      settings: other values by path, such as {"test.tracker": "iou"}.
      config: for a checkpoint without one: a Python file, such as "configs/ifr_r50.py",
        another config.json, or fields by name.
      categories: for a checkpoint without them: an annotation file that lists the
        classes, or their names in the order of the labels.
      **test: fields of `test`: mode="clip" is short for {"test.mode": "clip"}.

    Raises:
      ValueError: something is missing, damaged or does not fit; a setting is unknown or
        out of its range. One line that says what was expected and what came.
    """
    check_folder("path", path)
    fields = {**(settings or {}), **{f"test.{name}": x for name, x in test.items()}}
    kind = kind_of(path)
    if kind == "published":
        raise ValueError(f"{os.fspath(path)}: {no_weights(path, kind)}")
    if kind == "onnx":
        raise ValueError(
            f"{os.fspath(path)}: expected weights, or programs of format stablehlo, got"
            " a step in ONNX, which ONNX Runtime runs"
        )
    if kind == "stablehlo":
        if fields or config is not None or categories is not None:
            raise ValueError(
                f"{os.fspath(path)}: expected no settings, config or categories for"
                " exported programs, which cannot be changed"
            )
        model: Model | ProgramModel = ProgramModel(read_stored(path))
    else:
        from vis_jax import api
        from vis_jax.commands.saved_model import read_model

        found = read_model(path, fields, config=config, categories=categories)
        model = api.Model(found)
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        parts.keep_user_compilations()
    return model


class ProgramModel(Tracker):
    """A model that was exported as programs; JAX alone runs it.

    Args:
      stored: what to run.
    """

    def __init__(self, stored: StoredModel) -> None:
        self._stored = stored

    def _finder(self) -> Finder:
        stored = self._stored
        return Finder(stored.stream, stored.categories, stored.top, stored.whole)

    def __repr__(self) -> str:
        return (
            f"ProgramModel(system={self._stored.system!r}, {len(self.names)} classes)"
        )

"""Loads a model, from weights run by vis_jax or from programs run by JAX.

Programs need neither Flax nor TensorFlow nor a config, so these are imported only for
weights.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from vis_jax.checkpoints import find_weights
from vis_jax.commands import parts
from vis_jax.commands.stored_programs import StoredModel, read_stored
from vis_jax.paths import check_folder
from vis_jax.predict.loop import Finder
from vis_jax.tracking import Tracker
from vis_jax.training.model_folder import Kind, kind_of, no_weights

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

    Compiled programs are cached in vis_jax/compilations of the user's cache folder,
    unless JAX already has a cache folder.

    Args:
      path: folder of a training run (the newest checkpoint is read), of one checkpoint,
        written by `convert` or `export`, or in model-hub layout. Or the name of weights
        that come with vis_jax, such as "shapes"; a folder of that name is "./shapes".
      settings: overrides by path, such as {"test.tracker": "iou"}.
      config: for a checkpoint without one: a Python file, such as "configs/ifr_r50.py",
        another config.json, or fields by name.
      categories: for a checkpoint without them: an annotation file that lists the
        classes, or class names in label order.
      **test: fields of `test`: mode="clip" is short for {"test.mode": "clip"}.

    Raises:
      ValueError: a file is missing, damaged or does not fit; a setting is unknown or
        out of range. The message is one line with the expected and the actual value.
    """
    check_folder("path", path)
    path = find_weights(path)
    fields = {**(settings or {}), **{f"test.{name}": x for name, x in test.items()}}
    kind = kind_of(path)
    if kind in ("published", "onnx"):
        raise ValueError(f"{os.fspath(path)}: {_no_model(path, kind)}")
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


def _no_model(path: str | os.PathLike, kind: Kind) -> str:
    """Explains why an export of this kind cannot be loaded."""
    if kind == "onnx":
        return (
            "expected weights, or programs of format stablehlo, got a step in ONNX,"
            " which ONNX Runtime runs"
        )
    return no_weights(path, kind)


class ProgramModel(Tracker):
    """A model exported as programs, which needs JAX alone.

    Args:
      stored: the programs to run.
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

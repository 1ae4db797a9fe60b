"""Weights that come with the package.

Each folder in here is a model in model-hub layout, named by its folder; its README.md
says how it was trained.
"""

import os
from pathlib import Path

_FOLDER = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """Returns the folders of the weights that come with the package, by name."""
    found = sorted(_FOLDER.glob("*/model.safetensors"))
    return {path.parent.name: path.parent for path in found}


def find_weights(path: str | os.PathLike) -> str:
    """Returns the path of a model that may be given by name.

    A `str` without a separator is a name unless there is such a file or folder; every
    `PathLike` is a path.

    Args:
      path: a path or address, returned as it is, or a name such as "shapes".

    Raises:
      ValueError: there are weights and a folder of that name, or neither.
    """
    text = os.fspath(path)
    if Path(text).name != text or text == os.pardir:
        return text
    if not isinstance(path, str):
        return os.path.join(os.curdir, text)
    known = shipped()
    exists = os.path.lexists(text)
    if text in known and exists:
        raise ValueError(
            f"{text}: expected one model, got two of this name; write"
            f" {os.path.join(os.curdir, text)} for the one in the current folder and"
            f" {known[text]} for the weights that come with vis_jax"
        )
    if exists:
        return text
    if text not in known:
        raise ValueError(
            f"{text}: expected the folder of a model, or the name of weights that come"
            f" with vis_jax ({', '.join(known)}), got neither"
        )
    return os.fspath(known[text])

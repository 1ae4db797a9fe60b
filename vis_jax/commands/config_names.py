"""Bundled recipes by name."""

import ast
import difflib
import importlib.util
from pathlib import Path

SHARED = ("__init__", "common", "smallest")  # files that are not recipes


def recipe_files() -> dict[str, Path]:
    """Returns the file of each recipe by name, such as ifr_r50."""
    spec = importlib.util.find_spec("configs")
    folders = spec.submodule_search_locations if spec is not None else None
    return {
        path.stem: path
        for folder in folders or ()
        for path in sorted(Path(folder).glob("*.py"))
        if path.stem not in SHARED
    }


def find_recipe(text: str) -> Path:
    """Finds the file named by --config.

    Args:
      text: a Python file, or the name of a bundled recipe, also as `configs/NAME.py` if
        there is no such file.

    Raises:
      ValueError: there is no such file; suggests a similar name.
    """
    path = Path(text)
    if path.is_file():
        return path
    known = recipe_files()
    name = path.stem if path.parts == ("configs", f"{path.stem}.py") else text
    if name in known:
        return known[name]
    close = difflib.get_close_matches(path.stem, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(
        f"--config: expected a Python file, got {text}: no such file, and none of the"
        f" recipes that `configs list` names{hint}"
    )


def summary_of(path: Path) -> str:
    """Returns the first sentence of a recipe's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    return text.partition(" Results:")[0].rstrip(".")

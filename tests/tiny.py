"""Configs that the tests make systems of, read in one place."""

import importlib

from ml_collections import ConfigDict


def tiny_config(recipe: str, **options: str) -> ConfigDict:
    """A new `configs/<recipe>.py:debug`, with further options of that recipe."""
    words = ["debug", *(f"{name}={value}" for name, value in options.items())]
    return importlib.import_module(f"configs.{recipe}").get_config(",".join(words))

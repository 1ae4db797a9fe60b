"""Names for array types in signatures.

Nothing is checked at run time; the tests check the whole package by import hook. Axes
named `_` are not compared, such as those of pyramid levels.
"""

from jax.typing import DTypeLike
from jaxtyping import (
    Array,
    Bool,
    Float,
    Float16,
    Float32,
    Int,
    Int32,
    Key,
    PRNGKeyArray,
    Shaped,
    UInt8,
    UInt32,
)

__all__ = [
    "Array",
    "Bool",
    "DTypeLike",
    "Float",
    "Float16",
    "Float32",
    "Int",
    "Int32",
    "Key",
    "PRNGKeyArray",
    "Shaped",
    "UInt8",
    "UInt32",
]

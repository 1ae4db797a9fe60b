"""Names for array types in signatures, and the decorator that checks them."""

from beartype import beartype
from jaxtyping import (
    Array,
    Bool,
    Float,
    Float32,
    Int,
    Int32,
    PRNGKeyArray,
    UInt8,
    jaxtyped,
)

__all__ = [
    "Array",
    "Bool",
    "Float",
    "Float32",
    "Int",
    "Int32",
    "PRNGKeyArray",
    "UInt8",
    "typed",
]

# Shapes and dtypes are checked while a function is traced: nothing at run time.
typed = jaxtyped(typechecker=beartype)

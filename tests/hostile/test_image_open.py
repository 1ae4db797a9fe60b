"""Pillow opens only formats that start no other program."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    file
    for folder in ("vis_jax", "data_pipeline", "configs", "benchmarks")
    for file in sorted((ROOT / folder).rglob("*.py"))
]


def unlimited(text: str) -> list[int]:
    """Lines that call `.open` of a name with "Image" or "Pillow" without formats."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "open"
        and any(word in ast.unparse(node.func.value) for word in ("Image", "Pillow"))
        and not any(keyword.arg == "formats" for keyword in node.keywords)
    ]


def test_every_image_is_opened_with_a_list_of_formats():
    found = [
        f"{f.relative_to(ROOT)}:{n}" for f in FILES for n in unlimited(f.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Image.open(x)", [1]),
        ("\nPIL.Image.open(x)", [2]),
        ("Image.open(x, formats=F)", []),
        ("Pillow.open(x)", [1]),
        ("path.open('rb')", []),
    ],
)
def test_the_search_finds_them(text, lines):
    assert unlimited(text) == lines

"""The notebooks of examples/: their code is sound, and their outputs belong to it.

They are not run here; `make notebooks` does, and the nightly workflow.
"""

import ast
import json
from pathlib import Path

import pytest

import vis_jax
from examples.run_notebooks import code_hash
from vis_jax.main import split_command

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request):
    content = json.loads(request.param.read_text())
    joined = [{**cell, "source": "".join(cell["source"])} for cell in content["cells"]]
    return joined, content["metadata"]


def code_of(cells):
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_outputs_are_of_this_code_run_in_order_without_an_error(cells):
    found, metadata = cells
    code = code_of(found)
    assert metadata["code_sha256"] == code_hash(found), "run `make notebooks`"
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [one for cell in code for one in cell["outputs"]]
    assert {one["output_type"] for one in outputs} >= {"stream", "display_data"}
    assert "error" not in {one["output_type"] for one in outputs}


def test_names_of_the_library_and_commands_exist(cells):
    found, _ = cells
    tree = ast.parse("\n".join(cell["source"] for cell in code_of(found)))
    commands = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "vis_jax" or node.attr in vis_jax.__all__
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and text.startswith(("data ", "score")):
            commands += split_command(text.split())[0] != "train"
    assert commands

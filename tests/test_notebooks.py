"""The notebooks of examples/: their code is sound, and their outputs belong to it.

They are not run here; `make notebooks` does, and the nightly workflow.
"""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest
from absl import flags

import vis_jax
from examples.run_notebooks import code_hash
from vis_jax.main import split_command

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
MAX_BYTES = 400_000
# Folders of whoever ran them: no output holds a path that starts with one of these.
PLACES = re.compile(r"/(?:tmp|home|root|Users|work|private|opt|mnt)/")


def joined(lines):
    """The text of a field, which may be a list of lines."""
    return lines if isinstance(lines, str) else "".join(lines)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    content = json.loads(request.param.read_text())
    cells = [{**cell, "source": joined(cell["source"])} for cell in content["cells"]]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return cells, code, content["metadata"]


@pytest.fixture
def tree(notebook):
    _, code, _ = notebook
    return ast.parse("\n".join(cell["source"] for cell in code))


def test_outputs_are_of_this_code_run_in_order_without_an_error(notebook):
    cells, code, metadata = notebook
    assert metadata["code_sha256"] == code_hash(cells), "run `make notebooks`"
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [one for cell in code for one in cell["outputs"]]
    kinds = [one["output_type"] for one in outputs]
    assert {"stream", "display_data"} <= set(kinds)
    assert "error" not in kinds
    texts = [joined(one["text"]) for one in outputs if one["output_type"] == "stream"]
    texts += [
        joined(value)
        for one in outputs
        for kind, value in one.get("data", {}).items()
        if kind.startswith("text/") and "base64," not in joined(value)
    ]
    assert not [text for text in texts if PLACES.search(text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small(path):
    assert path.stat().st_size < MAX_BYTES


def test_names_of_the_library_exist(tree):
    imported = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "vis_jax" or node.attr in vis_jax.__all__
        ours = isinstance(node, ast.ImportFrom) and node.module.startswith("vis_jax")
        for alias in node.names if ours else ():
            module = importlib.import_module(node.module)
            assert hasattr(module, alias.name), f"{node.module}: {alias.name}"
            imported += 1
    assert imported


def test_commands_and_their_flags_exist(tree):
    """Notebooks run commands by `command("data check --root ..")`."""
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command"
    ]
    assert calls
    for call in calls:
        name, words = split_command(ast.literal_eval(call.args[0]).split())
        module = importlib.import_module(f"vis_jax.commands.{name.replace(' ', '_')}")
        values = flags.FlagValues()
        values.set_gnu_getopt(True)
        module.define(values, words)
        rest = values(["vis_jax", *words])[1:]
        assert not rest or name == "score"

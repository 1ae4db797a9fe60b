"""Runs the notebooks of this folder and writes their outputs into them.

Run:   make notebooks, or python examples/run_notebooks.py [NAME.ipynb ..]

The metadata keep a hash of the code that was run. tests/test_notebooks.py compares it:
outputs are never those of other code.
"""

import hashlib
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def code_hash(cells: list[dict]) -> str:
    """SHA-256 of the code cells of a notebook, in order."""
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def run(path: Path) -> None:
    """Runs one notebook and replaces it, unless a cell ends with an error."""
    import nbformat  # of the extra `docs`; the tests need the hash alone
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which change with every run
    notebook.metadata["code_sha256"] = code_hash(notebook.cells)
    nbformat.write(notebook, path)


def main(names: list[str]) -> None:
    """Runs the notebooks of these names, or all of them."""
    for path in [FOLDER / name for name in names] or sorted(FOLDER.glob("*.ipynb")):
        print(path.name)
        run(path)


if __name__ == "__main__":
    main(sys.argv[1:])

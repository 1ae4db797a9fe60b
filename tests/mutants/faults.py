"""One-line faults that tests must detect, listed in `mutants.toml`."""

import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.toml")


class StaleListError(Exception):
    """The list no longer matches the code."""


class Mutant(NamedTuple):
    """One fault.

    `before` occurs exactly once in the file; it includes a neighbouring line where
    needed.
    """

    name: str
    file: str  # relative to the root of the repository, like all paths
    before: str
    after: str
    tests: tuple[str, ...]  # one must fail: "file.py" or "file.py::test_name"


def read_mutants(path: Path = LIST) -> list[Mutant]:
    """Reads the list, in order.

    Raises:
      StaleListError: an entry lacks a field or has an unknown one.
    """
    mutants = []
    for name, fields in tomllib.loads(path.read_text()).items():
        expected = set(Mutant._fields) - {"name"}
        if set(fields) != expected:
            raise StaleListError(
                f"{name}: expected {sorted(expected)}, got {sorted(fields)}"
            )
        mutants.append(Mutant(name, **fields | {"tests": tuple(fields["tests"])}))
    return mutants


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """Returns the text of the file with the fault.

    Raises:
      StaleListError: the line does not occur exactly once, the result is not Python, or
        a file or test is missing.
    """
    for place in (mutant.file, *mutant.tests):
        file, _, test = place.partition("::")
        if not (root / file).is_file():
            raise StaleListError(f"{mutant.name}: there is no file {file}")
        if test and f"def {test}(" not in (root / file).read_text():
            raise StaleListError(f"{mutant.name}: there is no test {place}")
    text = (root / mutant.file).read_text()
    count = text.count(mutant.before)
    if count != 1:
        raise StaleListError(
            f"{mutant.name}: expected this once in {mutant.file}, found it {count}"
            f" times:\n{mutant.before}"
        )
    text = text.replace(mutant.before, mutant.after)
    try:
        compile(text, mutant.file, "exec")
    except SyntaxError as error:
        raise StaleListError(f"{mutant.name}: {error}") from error
    return text

"""The table of what was tried names its tests."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "reliability.md"


def test_every_file_of_this_folder_is_in_the_table():
    text = TABLE.read_text()
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    missing = {name for name in files if name not in text}
    assert missing == {Path(__file__).name}


def test_every_test_of_the_table_is_there():
    named = re.findall(r"`((?:[\w/]+/)?test_\w+\.py)(?:::(\w+))?`", TABLE.read_text())
    assert len(named) > 40
    for name, function in named:
        found = list(TESTS.rglob(Path(name).name))
        found = [path for path in found if str(path).endswith(f"/{name}")]
        assert len(found) == 1, (name, found)
        assert not function or f"def {function}(" in found[0].read_text(), function

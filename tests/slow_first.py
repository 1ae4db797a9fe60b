"""A pytest plug-in: marks slow tests, and starts the longest files first.

A worker that starts a long file last would leave the others waiting for it.
"""

# The files that take the most processor time, the longest first.
LONGEST = (
    "tests/test_end_to_end.py",
    "tests/test_configs.py",
)


def pytest_collection_modifyitems(items):
    def place(item):
        path = item.nodeid.split("::")[0]
        return LONGEST.index(path) if path in LONGEST else len(LONGEST)

    items.sort(key=place)

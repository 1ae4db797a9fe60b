"""Pytest plug-in that starts the slowest files first.

If a worker started a slow file last, the others would wait for it.
"""

# Files with the most processor time, slowest first.
LONGEST = (
    "tests/test_end_to_end.py",
    "tests/test_debug_recipes.py",
    "tests/test_configs.py",
    "tests/test_docs.py",
    "tests/golden/test_mask_rcnn.py",
    "tests/systems/test_batch_norm.py",
    "tests/systems/test_ifr.py",
    "tests/commands/test_compare.py",
    "tests/training/test_devices.py",
    "tests/data_pipeline/test_pipeline.py",
    "tests/training/test_own_dataset.py",
    "tests/test_api.py",
    "tests/systems/test_mask_track_rcnn.py",
    "tests/golden/test_operators.py",
    "tests/systems/osmn/test_system.py",
    "tests/evaluate/test_modes.py",
    "tests/converters/test_load.py",
    "tests/golden/test_mask2former.py",
    "tests/systems/test_padded_frames.py",
    "tests/systems/test_yolact.py",
    "tests/commands/test_convert.py",
)


def pytest_collection_modifyitems(items):
    def place(item):
        path = item.nodeid.split("::")[0]
        return LONGEST.index(path) if path in LONGEST else len(LONGEST)

    items.sort(key=place)

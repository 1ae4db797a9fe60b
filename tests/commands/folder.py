"""A small folder in the YouTube-VIS format, and ways to damage it."""

import json

from tests.command_line import call

CONFIG = "configs/ifr_shapes.py:debug"


def write_folder(path, num_videos=2):
    """Moving shapes of the size that `:debug` configs have."""
    sizes = ("--height=64", "--width=96", "--length=4")
    words = ("--output", path, "--num_videos", num_videos, *sizes)
    assert call("data", "make_shapes", *words).code == 0
    return path


def config_words(folder):
    """Flags that make a `:debug` config read a folder, for training and testing."""
    return (
        "--config.data.name=folder",
        f"--config.data.root={folder}",
        "--config.test.split=train",
    )


def edit(folder, change):
    """Applies a function to the annotations."""
    path = folder / "instances.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cut(path, share=0.5):
    """Keeps the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

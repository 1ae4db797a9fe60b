"""Writes a small folder in YouTube-VIS format, and damages it."""

import json

from tests.command_line import call

CONFIG = "configs/ifr_shapes.py:debug"


def write_folder(path, num_videos=2):
    """Writes moving shapes of the size in `:debug` configs."""
    sizes = ("--height=64", "--width=96", "--length=4")
    words = ("--output", path, "--num_videos", num_videos, *sizes)
    assert call("data", "make_shapes", *words).code == 0
    return path


def config_words(folder):
    """Returns flags for a `:debug` config to train and test on a folder."""
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
    """Truncates a file to a fraction of its size."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

from pathlib import Path

import numpy as np
import pytest
from etils import epath

from tests.test_settings import Disc
from vis_jax.commands.evaluate import fingerprint, local_folder, shared_folder


class Bucket:
    """What `local_folder` needs of a path such as gs://bucket/folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.mkdir = folder.mkdir

    def __str__(self):
        return "gs://bucket/folder"

    def __truediv__(self, name):
        return self._folder / name


@pytest.mark.usefixtures("types_unchecked")  # a stand-in for a path
def test_results_for_a_bucket_are_copied_when_they_are_complete(tmp_path):
    with local_folder(Bucket(tmp_path / "out")) as folder:
        (folder / "results.json").write_text("[]")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "results.json").read_text() == "[]"
    assert not folder.exists()
    with local_folder(tmp_path) as folder:
        assert folder == tmp_path


def test_several_processes_need_a_disk():
    expected = "--output: expected a folder on a disk that all processes see, got gs://"
    with pytest.raises(ValueError, match=expected):
        shared_folder(epath.Path("gs://bucket/out"))


def test_the_fingerprint_is_of_settings_names_and_values():
    config = Disc(radius=1)
    tree = {"params": {"x": np.arange(4.0), "y": np.float32(1)}}
    same = {"params": {"y": np.float32(1), "x": np.arange(4.0)}}
    assert fingerprint(config, tree) == fingerprint(Disc(radius=1), same)
    others = [
        {"params": {"x": np.arange(4.0) + 1, "y": np.float32(1)}},
        {"params": {"x": np.arange(4.0).reshape(2, 2), "y": np.float32(1)}},
        {"params": {"z": np.arange(4.0), "y": np.float32(1)}},
    ]
    digests = {fingerprint(config, other) for other in [tree, *others]}
    assert len(digests | {fingerprint(Disc(radius=2), tree)}) == 5

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from etils import epath

from tests.test_settings import Disc
from vis_jax.commands import processes
from vis_jax.commands.evaluate import check_seen_by_all, fingerprint
from vis_jax.paths import on_disk


def test_several_processes_need_a_disk():
    with pytest.raises(ValueError, match="--output: expected a path on a disk, got gs"):
        on_disk("--output", epath.Path("gs://bucket/out"))


class Processes:
    """Two threads, which stand in for processes of JAX."""

    def __init__(self):
        self._own, self._told = threading.local(), {}
        self._barrier = threading.Barrier(2, timeout=30)

    def index(self):
        return self._own.index

    def all_texts(self, name, texts):
        self._told[name, self.index()] = texts
        self._barrier.wait()
        return [text for index in range(2) for text in self._told[name, index]]

    def run(self, index, folder):
        self._own.index = index
        check_seen_by_all(folder)


def test_a_folder_that_processes_do_not_share_is_named_by_all(tmp_path, monkeypatch):
    two = Processes()
    monkeypatch.setattr(jax, "process_index", two.index)
    monkeypatch.setattr(processes, "all_texts", two.all_texts)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(two.run, (0, 1), [tmp_path / "a"] * 2)) == [None, None]
        ends = [pool.submit(two.run, i, tmp_path / "ab"[i]) for i in (0, 1)]
    expected = "folder that all processes share, got .*, where process 1 on .* cannot"
    for end in ends:
        with pytest.raises(ValueError, match=expected):
            end.result()
    assert not [*tmp_path.glob("*/*")]


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

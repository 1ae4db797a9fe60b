"""Progress of several processes, with a stand-in for JAX's coordinator."""

import os
import signal

import jax
import pytest
from orbax.checkpoint import multihost

from vis_jax.commands import processes
from vis_jax.commands.processes import SharedProgress, together


class Client:
    """The key-value store of all processes."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, *, allow_overwrite):
        assert allow_overwrite
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [x for x in self.values.items() if x[0].startswith(f"{folder}/")]


@pytest.fixture
def start(monkeypatch):
    """A function that starts the progress of one of three processes."""
    client = Client()
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost, "get_jax_distributed_client", lambda: client)
    monkeypatch.setattr(processes, "_EVERY", 0.0)
    monkeypatch.setattr(processes, "_LINE_EVERY", 0.0)

    def progress(index, name="evaluate"):
        monkeypatch.setattr(jax, "process_index", lambda: index)
        return SharedProgress(name, 9)

    return progress


def test_the_first_process_shows_the_progress_of_all(start, capsys):
    first, second, third, other = (*map(start, range(3)), start(1, "predict"))
    second.tell(1)
    second.tell(2)
    third.tell(4)
    other.tell(9)
    assert capsys.readouterr().err == ""
    first.tell(3)
    assert capsys.readouterr().err == "evaluate      9/9 videos\n"
    first.wait()  # returns, as all are finished


def test_sigterm_lets_a_single_process_store_what_is_finished(capsys):
    before, stored = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(SystemExit) as caught, together():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            stored.append(True)
    assert caught.value.code == 143
    assert stored
    assert capsys.readouterr().err == "SIGTERM: start again to go on\n"
    assert signal.getsignal(signal.SIGTERM) == before

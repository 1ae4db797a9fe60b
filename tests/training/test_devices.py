"""The same run in one process and in two; test_sharding.py has eight devices."""

import json
import signal
import socket

import numpy as np
import pytest

from tests.training import toy_run
from tests.training.processes import SECONDS, finish, start
from vis_jax.training.together import LOST

SYSTEM = {"features": 4}  # which two devices can divide
HALVES = SYSTEM | {"config": {"mesh": {"fsdp": 2, "least": 1}}}


def with_evaluation(folder):
    """Options of a run that ends with one."""
    return {"workdir": str(folder / "run"), "evaluate": str(folder / "evaluation")}


def evaluated_in_a_bucket(folder):
    """The same, with the evaluation in a bucket."""
    place = {"evaluate": "bucket://evaluation", "bucket": str(folder)}
    return with_evaluation(folder) | place


def one_process(options):
    """Returns the output of a separate process."""
    return json.loads(json.dumps(toy_run.run(SYSTEM | options)))


def evaluated(folder):
    """The files of an evaluation."""
    files = (folder / "evaluation").iterdir()
    return {path.name: path.read_bytes() for path in files}


def start_two(*options):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"num_processes": 2, "port": port}
    return [
        start({"process_id": index, **shared, **own})
        for index, own in enumerate(options)
    ]


def two_processes(*options, code=0):
    return finish(*start_two(*options), code=code)


def assert_same_run(report, expected):
    assert report["losses"].keys() == expected["losses"].keys()
    for step, loss in report["losses"].items():
        np.testing.assert_allclose(loss, expected["losses"][step], rtol=1e-5)
    np.testing.assert_allclose(report["kernel"], expected["kernel"], rtol=1e-4)
    for name in ("mean", "var"):  # of the clips of all devices
        np.testing.assert_allclose(report[name], expected[name], rtol=1e-4)


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory):
    """The folder and the reports of a run in two processes with half a state each."""
    folder = tmp_path_factory.mktemp("two")
    return folder, two_processes(*[HALVES | evaluated_in_a_bucket(folder)] * 2)


def test_two_processes_compute_what_one_does(two_devices, tmp_path):
    folder, reports = two_devices
    expected = one_process(with_evaluation(tmp_path))
    assert expected["devices"] == 1
    for report in reports:
        assert report["devices"] == 2
        assert report["texts"] == ["from 0", "from 1"]
        assert_same_run(report, expected)
    assert len(evaluated(folder)["results.json"]) > 1000
    assert evaluated(folder) == evaluated(tmp_path)
    # One process goes on from the checkpoint that two have written.
    more = one_process({"workdir": str(folder / "run"), "config": {"num_steps": 7}})
    assert list(more["losses"]) == ["7"]


def test_two_processes_of_which_one_was_killed_go_on_to_the_same_bits(
    two_devices, tmp_path, monkeypatch
):
    monkeypatch.setenv("VIS_JAX_LOST_AFTER", "10")
    options = HALVES | with_evaluation(tmp_path)
    killed = options | {"signal": signal.SIGKILL, "signal_at": 5}
    survivor, lost = start_two(options, killed)
    try:
        errors = survivor.communicate(timeout=SECONDS)[1]
    finally:
        survivor.kill()
        lost.kill()
        lost.communicate()
    assert (survivor.returncode, lost.returncode) == (LOST, -signal.SIGKILL)
    assert errors == (
        f"error: process 1 of 2 on {socket.gethostname()}: no sign of life for 10 s:"
        " killed, frozen or cut off\n"
    )
    monkeypatch.delenv("VIS_JAX_LOST_AFTER")  # both start on a machine that is busy
    for report, expected in zip(
        two_processes(options, options), two_devices[1], strict=True
    ):
        assert report["kernel"] == expected["kernel"]
        assert report["losses"]
        assert report["losses"].items() < expected["losses"].items()
    assert evaluated(tmp_path) == evaluated(two_devices[0])  # on a disk, in a bucket


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path):
    options = {
        "workdir": str(tmp_path),
        "seconds_per_step": 0.05,
        "config": {"num_steps": 400, "train.checkpoint_every": 400},
    }
    # SIGUSR1, which becomes the SIGTERM that JAX tells the others of.
    told = options | {"signal": signal.SIGUSR1, "signal_at": 2}
    steps = [max(map(int, r["losses"])) for r in two_processes(told, options, code=143)]
    assert steps[0] == steps[1] < 400
    saved = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert saved == [str(steps[0])]

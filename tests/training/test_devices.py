"""The same run on one device, on eight, and on two processes."""

import signal
import socket

import numpy as np
import pytest

from tests.training.processes import finish, start

pytestmark = pytest.mark.slow

EIGHT = "--xla_force_host_platform_device_count=8"


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    return one_run(tmp_path_factory.mktemp("one"))


def one_run(folder, **flags):
    """A run of one process, with an evaluation at its end."""
    options = {"workdir": str(folder / "run"), "evaluate": str(folder / "evaluation")}
    (report,) = finish(start(options, **flags))
    return report | {"evaluated": evaluated(folder)}


def evaluated(folder):
    """The files of an evaluation."""
    files = (folder / "evaluation").iterdir()
    return {path.name: path.read_bytes() for path in files}


def two_processes(*options, code=0):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"num_processes": 2, "port": port}
    return finish(
        *(
            start({"process_id": index, **shared, **own})
            for index, own in enumerate(options)
        ),
        code=code,
    )


def assert_same_run(report, expected):
    assert report["losses"].keys() == expected["losses"].keys()
    for step, loss in report["losses"].items():
        np.testing.assert_allclose(loss, expected["losses"][step], rtol=1e-5)
    np.testing.assert_allclose(report["kernel"], expected["kernel"], rtol=1e-4)
    for name in ("mean", "var"):  # of the clips of all devices
        np.testing.assert_allclose(report[name], expected[name], rtol=1e-4)


def test_eight_devices_compute_what_one_does(one_device, tmp_path):
    report = one_run(tmp_path, xla_flags=EIGHT)
    assert (one_device["devices"], report["devices"]) == (1, 8)
    assert_same_run(report, one_device)
    # A video on each device: the same bits.
    assert len(report["evaluated"]["results.json"]) > 1000
    assert report["evaluated"] == one_device["evaluated"]


def test_two_processes_compute_what_one_does(one_device, tmp_path):
    options = {"workdir": str(tmp_path), "evaluate": str(tmp_path / "evaluation")}
    for report in two_processes(options, options):
        assert report["devices"] == 2
        assert report["texts"] == ["from 0", "from 1"]
        assert_same_run(report, one_device)
    assert evaluated(tmp_path) == one_device["evaluated"]
    # One process goes on from the checkpoint that two have written.
    more = {"workdir": str(tmp_path), "config": {"num_steps": 7}}
    (report,) = finish(start(more))
    assert list(report["losses"]) == ["7"]


def test_sigterm_to_one_process_stops_both_at_the_same_step(tmp_path):
    options = {
        "workdir": str(tmp_path),
        "seconds_per_step": 0.05,
        "config": {"num_steps": 400, "train.checkpoint_every": 400},
    }
    told = options | {"signal": signal.SIGTERM, "signal_at": 2}
    steps = [max(map(int, r["losses"])) for r in two_processes(told, options, code=143)]
    assert steps[0] == steps[1] < 400
    saved = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert saved == [str(steps[0])]

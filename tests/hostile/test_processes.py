"""Several processes: an error of one of them, and the GPUs that each one takes."""

import os
import socket
import subprocess
import sys
import time

import pytest

from tests.training.processes import ROOT, start
from vis_jax.training.devices import gpus_here, slurm_device_ids, tasks_here
from vis_jax.training.together import LOST

EIGHT = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_in_one_process_ends_the_other_with_its_cause(tmp_path, fails):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"workdir": str(tmp_path), "num_processes": 2, "port": port}
    shared |= {"seconds_per_step": 0.05, "config": {"num_steps": 10**6}}
    options = [shared | {"process_id": index} for index in range(2)]
    options[fails]["error_at"] = 3
    began = time.monotonic()
    processes = [start(one) for one in options]
    try:
        errors = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert time.monotonic() - began < 100
    told = [line for line in errors[1 - fails].splitlines() if "error: " in line]
    name = f"process {fails} of 2 on {socket.gethostname()}"
    assert told == [f"error: {name}: ValueError: batch 3 is broken"]
    assert "Traceback" not in errors[1 - fails]
    assert "batch 3 is broken" in errors[fails]
    assert [process.returncode for process in processes] == [2, 2]


def test_a_frozen_coordinator_ends_the_other_process():
    code = """
import os, signal, sys, time
from vis_jax.training.distributed import initialise_distributed, wait_for_all
initialise_distributed()
wait_for_all("here")
if os.environ["VIS_JAX_PROCESS_ID"] == "0":
    os.kill(os.getpid(), signal.SIGSTOP)
wait_for_all("never")
"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = os.environ | {
        "VIS_JAX_COORDINATOR": f"127.0.0.1:{port}",
        "VIS_JAX_NUM_PROCESSES": "2",
        "VIS_JAX_LOST_AFTER": "2",
    }
    frozen, other = (
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True,
            env=environ | {"VIS_JAX_PROCESS_ID": str(index)},
        )
        for index in range(2)
    )  # fmt: skip
    try:
        errors = other.communicate(timeout=60)[1]
    finally:
        frozen.kill()
        other.kill()
        frozen.communicate()
    assert errors == (
        "error: process 0 of 2, the coordinator: no sign of life for 2 s: killed,"
        " frozen or cut off\n"
    )
    assert other.returncode == LOST


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (EIGHT | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_NODEID": "1"}, range(8)),
        (EIGHT | {"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_LOCALID": "1"}, range(4, 8)),
        (EIGHT | {"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_LOCALID": "3"}, [3]),
        (EIGHT | {"SLURM_STEP_TASKS_PER_NODE": "3"}, None),
        (EIGHT, None),
        (EIGHT | {"SLURM_TASKS_PER_NODE": "1", "JAX_LOCAL_DEVICE_IDS": "2"}, None),
        ({"CUDA_VISIBLE_DEVICES": "5", "SLURM_STEP_TASKS_PER_NODE": "8"}, [0]),
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_STEP_TASKS_PER_NODE": "1"}, None),
        ({"SLURM_GPUS_ON_NODE": "4", "SLURM_STEP_TASKS_PER_NODE": "1"}, range(4)),
    ],
)
def test_a_task_of_slurm_takes_its_share_of_the_gpus(environ, expected):
    found = slurm_device_ids(environ)
    assert found == (None if expected is None else list(expected))


@pytest.mark.parametrize(
    ("text", "node", "expected"),
    [("2(x3),1", 2, 2), ("2(x3),1", 3, 1), ("4", 0, 4), ("", 0, None), ("x", 0, None)],
)
def test_tasks_of_a_node(text, node, expected):
    environ = {"SLURM_STEP_TASKS_PER_NODE": text, "SLURM_NODEID": str(node)}
    assert tasks_here(environ) == expected


def test_no_gpu_is_visible():
    assert gpus_here({"CUDA_VISIBLE_DEVICES": "", "SLURM_GPUS_ON_NODE": "8"}) == 0

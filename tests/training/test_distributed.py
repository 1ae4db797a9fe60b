import pytest

from vis_jax.training.distributed import explicit_address, is_one_of_several

FULL = {
    "VIS_JAX_COORDINATOR": "host:1234",
    "VIS_JAX_NUM_PROCESSES": "4",
    "VIS_JAX_PROCESS_ID": "3",
}


def test_nothing_given_is_one_process():
    assert explicit_address({}) is None
    assert explicit_address({"VIS_JAX_COORDINATOR": ""}) is None
    assert not is_one_of_several({})


def test_the_environment_gives_the_address():
    assert explicit_address(FULL) == {
        "coordinator_address": "host:1234",
        "num_processes": 4,
        "process_id": 3,
    }


def test_half_an_address_is_an_error():
    with pytest.raises(ValueError, match=r"got \['VIS_JAX_COORDINATOR'\]"):
        explicit_address({"VIS_JAX_COORDINATOR": "host:1"})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_NTASKS": "2"}, False),  # an allocation, but no srun
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"VIS_JAX_DISTRIBUTED": "auto"}, True),
    ],
)
def test_finds_clusters(environ, expected):
    assert is_one_of_several(environ) is expected


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="expected 'auto' or nothing, got 'yes'"):
        is_one_of_several({"VIS_JAX_DISTRIBUTED": "yes"})

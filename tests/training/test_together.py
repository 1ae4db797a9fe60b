import subprocess
import sys

import pytest

from vis_jax.training import jax_messages
from vis_jax.training.together import HeartbeatMonitor, lost_after

FATAL = (
    "F1129 15:44:28.52 325 client.h:80] Terminating process because the JAX distributed"
    " service detected fatal errors. This most likely indicates that another task died;"
    " see the other task logs. absl::Status: UNAVAILABLE: Failed to send RPC. Either"
    " the leader task was preempted or this task is experiencing network issues."
)


def test_a_process_without_a_new_sign_of_life_is_lost():
    judge = HeartbeatMonitor([0, 1], 2, 3.0)
    for second in range(3):
        assert judge.lost({0: f"a {second}", 1: "b 1"}, 1.0) is None
    assert judge.lost({0: "a 3", 1: "b 1"}, 1.0) is None  # just 3 seconds
    assert judge.lost({0: "a 4", 1: "b 1"}, 1.0) == (
        "process 1 of 2 on b: no sign of life for 3 s: killed, frozen or cut off"
    )


def test_a_process_that_comes_back_in_time_is_not_lost():
    judge = HeartbeatMonitor([0, 1], 2, 3.0)
    for second in range(30):
        signs = {0: f"a {second}", 1: f"b {second // 3}"}
        assert judge.lost(signs, 1.0) is None


def test_after_a_failed_operation_a_process_is_lost_sooner():
    judge = HeartbeatMonitor([0, 1], 2, 60.0)
    for second in range(11):
        assert judge.lost({0: f"a {second} failing", 1: "b 1"}, 1.0) is None
    found = judge.lost({0: "a 11 failing", 1: "b 1"}, 1.0)
    assert found == (
        "process 1 of 2 on b: no sign of life for 10 s: killed, frozen or cut off"
    )


def test_a_process_that_never_gave_a_sign_is_lost():
    judge = HeartbeatMonitor(range(3), 3, 1.0)
    signs = {0: "a 1", 1: "b 1"}
    assert judge.lost(signs, 1.0) is None
    found = judge.lost({0: "a 2", 1: "b 2"}, 1.0)
    assert found is not None
    assert found.startswith("process 2 of 3 on an unknown host: no sign of life for 1")


def test_the_limit_is_a_number_of_seconds_in_the_environment():
    assert lost_after({}) == 60.0
    assert lost_after({"VIS_JAX_LOST_AFTER": "7"}) == 7.0
    for text in ("0", "-1", "soon", "1.5"):
        with pytest.raises(
            ValueError, match="VIS_JAX_LOST_AFTER: expected a number of"
        ):
            lost_after({"VIS_JAX_LOST_AFTER": text})


def test_a_stack_of_jax_becomes_one_line():
    """The program that what C++ writes to the standard error passes."""
    text = f"W a warning\n{FATAL}\nAdditional GRPC error\n    @ 0x7f SendToLog()\n"
    done = subprocess.run(
        [sys.executable, "-S", "-E", jax_messages.__file__],
        input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "W a warning",
        "error: process 0, the coordinator, or another one cannot be reached:"
        " UNAVAILABLE: Failed to send RPC",
    ]
    assert done.stderr == ""

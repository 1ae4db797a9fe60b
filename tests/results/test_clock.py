import threading
import time

import pytest

from vis_jax.results.clock import NO_CLOCK, Clock


def test_seconds_add_up_also_from_several_threads_and_after_errors():
    clock = Clock()

    def work():
        for _ in range(200):
            clock.add("model", 0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(KeyError), clock("decode"):
        time.sleep(0.01)
        raise KeyError
    assert list(clock.seconds) == ["model", "decode"]
    assert clock.seconds["model"] == 400
    assert 0.01 <= clock.seconds["decode"] < 5


def test_without_a_clock_nothing_is_kept():
    with NO_CLOCK("decode"):
        pass
    assert NO_CLOCK.seconds == {}

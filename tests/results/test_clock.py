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
    with pytest.raises(KeyError), clock("reading"):
        time.sleep(0.01)
        raise KeyError
    assert list(clock.seconds) == ["model", "reading"]
    assert clock.seconds["model"] == 400
    assert 0.01 <= clock.seconds["reading"] < 5


def test_without_a_clock_nothing_is_kept():
    with NO_CLOCK("reading"):
        pass
    NO_CLOCK.read_frame()
    NO_CLOCK.finish_frame()
    assert NO_CLOCK.seconds == {}
    assert (NO_CLOCK.frames_read, NO_CLOCK.frames_done) == (0, 0)

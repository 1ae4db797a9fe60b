import numpy as np
import pytest

from vis_jax.train import schedules


def values(schedule, counts):
    return [float(schedule(np.int32(count))) for count in counts]


def test_step_divides_by_ten_at_each_step_given():
    schedule = schedules.step(2.0, decay_at=(3, 5), warmup_steps=0)
    expected = [2.0, 2.0, 0.2, 0.2, 0.02, 0.02]
    np.testing.assert_allclose(
        values(schedule, [0, 2, 3, 4, 5, 9]), expected, rtol=1e-6
    )


def test_no_decay_steps_keep_the_rate():
    schedule = schedules.step(2.0, decay_at=(), warmup_steps=0)
    assert values(schedule, [0, 10_000]) == [2.0, 2.0]


def test_warm_up_rises_to_the_rate():
    schedule = schedules.step(2.0, decay_at=(), warmup_steps=4)
    assert values(schedule, range(6)) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_cosine_starts_at_the_rate_and_ends_at_zero():
    schedule = schedules.cosine(2.0, num_steps=12, warmup_steps=2)
    expected = [1.0, 2.0, 2.0, 1.0, 0.0, 0.0]
    got = values(schedule, [0, 1, 2, 7, 12, 13])
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("decay_at", [(5, 3), (4, 4)])
def test_decay_steps_must_ascend(decay_at):
    with pytest.raises(ValueError, match="ascending"):
        schedules.step(1.0, decay_at=decay_at, warmup_steps=0)


def test_warm_up_must_end_before_the_run():
    with pytest.raises(ValueError, match="less than num_steps = 5"):
        schedules.cosine(1.0, num_steps=5, warmup_steps=5)

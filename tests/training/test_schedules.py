import numpy as np
import pytest

from vis_jax.training import schedules
from vis_jax.training.schedules import Warmup

NO_WARMUP = Warmup(0, 0.0)


def values(schedule, counts):
    return [float(schedule(np.int32(count))) for count in counts]


def test_step_divides_by_ten_at_each_step_given():
    schedule = schedules.step(2.0, decay_at=(3, 5), warmup=NO_WARMUP)
    expected = [2.0, 2.0, 0.2, 0.2, 0.02, 0.02]
    np.testing.assert_allclose(
        values(schedule, [0, 2, 3, 4, 5, 9]), expected, rtol=1e-6
    )


def test_no_decay_steps_keep_the_rate():
    schedule = schedules.step(2.0, decay_at=(), warmup=NO_WARMUP)
    assert values(schedule, [0, 10_000]) == [2.0, 2.0]


def test_warm_up_rises_to_the_rate():
    schedule = schedules.step(2.0, decay_at=(), warmup=Warmup(4, 0.0))
    assert values(schedule, range(6)) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_warm_up_from_a_factor_is_that_of_mmcv():
    schedule = schedules.step(0.005, decay_at=(600,), warmup=Warmup(500, 1 / 3))

    def mmcv(count):
        if count >= 500:
            return 0.005 * (0.1 if count >= 600 else 1.0)
        return 0.005 * (1 - (1 - count / 500) * (1 - 1 / 3))

    counts = [0, 1, 250, 499, 500, 501, 599, 600]
    got = values(schedule, counts)
    np.testing.assert_allclose(got, [mmcv(count) for count in counts], rtol=1e-6)


def test_a_factor_without_steps_is_no_warm_up():
    schedule = schedules.step(2.0, decay_at=(), warmup=Warmup(0, 1 / 3))
    assert values(schedule, [0, 1]) == [2.0, 2.0]


def test_cosine_starts_at_the_rate_and_ends_at_zero():
    schedule = schedules.cosine(2.0, num_steps=12, warmup=Warmup(2, 0.0))
    expected = [1.0, 2.0, 2.0, 1.0, 0.0, 0.0]
    got = values(schedule, [0, 1, 2, 7, 12, 13])
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("decay_at", [(5, 3), (4, 4)])
def test_decay_steps_must_ascend(decay_at):
    with pytest.raises(ValueError, match="ascending"):
        schedules.step(1.0, decay_at=decay_at, warmup=NO_WARMUP)


def test_warm_up_must_end_before_the_run():
    with pytest.raises(ValueError, match="less than num_steps = 5"):
        schedules.cosine(1.0, num_steps=5, warmup=Warmup(5, 0.0))


def test_poly_falls_with_its_power_and_may_start_later():
    schedule = schedules.poly(2.0, num_steps=12, warmup=Warmup(2, 0.0))
    expected = [1.0, 2.0, 2.0, 2 * 0.5**0.9, 0.0, 0.0]
    np.testing.assert_allclose(
        values(schedule, [0, 1, 2, 7, 12, 13]), expected, rtol=1e-6
    )
    later = schedules.delayed(schedule, 3)
    np.testing.assert_allclose(
        values(later, [0, 2, 3, 4, 10, 15]), [0, 0, 1, 2, 2 * 0.5**0.9, 0], rtol=1e-6
    )

import numpy as np
import pytest

from vis_jax.training.monitor import Monitor, NonFiniteLossError
from vis_jax.training.step import StepMetrics


def metrics(mask=1.0, dice=2.0, gradient_norm=3.0, lost=0.0):
    values = [np.float32(value) for value in (mask, dice, gradient_norm)]
    terms = {"mask": values[0], "dice": values[1]}
    return StepMetrics(
        terms=terms,
        notes={"lost": np.float32(lost)},
        loss=values[0] + values[1],
        gradient_norm=values[2],
        learning_rate=np.float32(1e-4),
    )


def test_summary_is_the_mean_since_the_last_one():
    monitor = Monitor(clips_per_step=4)
    monitor.add(1, metrics(mask=1.0))
    monitor.add(2, metrics(mask=3.0))
    first = monitor.summary().values
    assert (first["mask"], first["loss"]) == (2.0, 4.0)
    assert first["clips_per_second"] == 4 * first["steps_per_second"] > 0
    monitor.add(3, metrics(mask=7.0))
    assert monitor.summary().values["mask"] == 7.0


def test_notes_stand_apart_from_the_terms():
    monitor = Monitor(clips_per_step=4)
    monitor.add(1, metrics(lost=1.0))
    monitor.add(2, metrics(lost=4.0))
    assert "lost" not in monitor.latest()
    values, notes = monitor.summary()
    assert "lost" not in values
    assert values["loss"] == 3.0
    assert notes == {"lost": 2.5}
    monitor.add(3, metrics(lost=np.inf))  # no part of the loss: no reason to stop
    assert monitor.summary().notes == {"lost": np.inf}


def test_a_check_between_summaries_loses_no_row():
    monitor = Monitor(clips_per_step=4)
    monitor.add(1, metrics(mask=1.0))
    assert monitor.latest()["mask"] == 1.0
    monitor.add(2, metrics(mask=2.0))
    assert monitor.summary().values["mask"] == 1.5


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"dice": np.nan}, "step 2: loss term 'dice' is nan"),
        ({"mask": np.inf}, "step 2: loss term 'mask' is inf"),
        ({"gradient_norm": np.nan}, "step 2: gradient_norm is nan"),
    ],
)
def test_names_the_first_step_and_term_that_is_not_finite(bad, message):
    monitor = Monitor(clips_per_step=4)
    monitor.add(1, metrics())
    monitor.add(2, metrics(**bad))
    monitor.add(3, metrics(mask=np.nan, dice=np.nan))
    with pytest.raises(NonFiniteLossError, match=message):
        monitor.check()

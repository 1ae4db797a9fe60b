import itertools

import jax
import jax.numpy as jnp
import pytest

from vis_jax.training import phases
from vis_jax.training.phases import first_update, phase


def test_a_phase_says_what_takes_how_long(monkeypatch):
    said, clock = [], itertools.count(10.0, 2.5)
    monkeypatch.setattr(phases.time, "monotonic", lambda: next(clock))
    with phase(said.append, "first batch", "reading the clips"):
        pass
    assert said == [
        "first batch   reading the clips ..",
        "first batch   done in 2.5 s",
    ]


def test_a_phase_says_what_of_it_was_compiling(monkeypatch):
    clock = iter([0.0, 60.0])
    said = []
    with monkeypatch.context() as patch:
        patch.setattr(phases.time, "monotonic", lambda: next(clock))
        with phase(said.append, "parameters", "random"):
            jax.monitoring.record_event_duration_secs(phases._COMPILED, 41.25)
            jax.monitoring.record_event_duration_secs("/jax/another", 7.0)
    assert said[1] == "parameters    done in 60.0 s, of which compiling 41.2 s"
    jax.monitoring.record_event_duration_secs(phases._COMPILED, 9.0)  # of nobody's


def test_what_jax_compiles_is_counted():
    compiled = phases.CompileTime()
    phases._open.append(compiled)
    jax.jit(lambda x: x * 3 + 1)(jnp.arange(7))
    phases._open.remove(compiled)
    assert compiled.seconds > 0
    text = phases.took(2.0, compiled)
    assert text.startswith("done in 2.0 s")
    compiled.read, compiled.seconds = 2, 9.0
    text = phases.took(2.0, compiled)
    assert text == "done in 2.0 s, of which compiling 2.0 s (2 from the cache)"


def test_only_the_first_update_is_a_phase_and_an_error_has_no_end():
    said = []
    for step in (5, 6):
        with first_update(said.append, step, 5):
            pass
    assert [line.split(" .. ")[0][:20] for line in said] == [
        "first update  step 5", "first update  done i"
    ]  # fmt: skip
    with pytest.raises(KeyError), phase(said.append, "parameters", "random"):
        raise KeyError
    assert said[2:] == ["parameters    random .."]
    assert not phases._open

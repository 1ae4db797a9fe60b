"""Runs a system, as a config describes it, on videos."""

import jax

from vis_jax.evaluate import views
from vis_jax.evaluate.stream import Program, run_program
from vis_jax.results.stream import Stream
from vis_jax.structures import Clip, Predictions
from vis_jax.systems.system import System, TestSettings


def make_stream(system: System, variables: dict, test: TestSettings) -> Stream:
    """What runs a system on videos.

    Args:
      system: what to run.
      variables: its parameters.
      test: the sizes that frames are resized to; `tta`, short sides to average over.
    """
    if test.tta:
        return views.make_stream(system, variables, test)
    return run_program(make_program(system, variables), test)


def make_program(system: System, variables: dict) -> Program:
    """A system with its variables on the device; compiled when it first runs."""
    on_device = jax.device_put(variables)
    start, compiled = jax.jit(system.start), jax.jit(system.step, donate_argnums=1)

    def step(state, clip: Clip) -> tuple[object, Predictions]:
        return compiled(on_device, state, clip)

    return Program(start, step, system.window, system.render, system.limit)

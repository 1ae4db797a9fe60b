"""Runs a system, as a config describes it, on videos."""

import jax

from vis_jax.evaluate import views
from vis_jax.evaluate.stream import Program, run_program
from vis_jax.evaluate.turns import NO_TURNS, Turns
from vis_jax.results.stream import Stream
from vis_jax.structures import Clip, Predictions
from vis_jax.systems.system import System, TestSettings


def make_stream(
    system: System,
    variables: dict,
    test: TestSettings,
    device: jax.Device | None = None,
    turns: Turns = NO_TURNS,
) -> Stream:
    """What runs a system on videos.

    Args:
      system: what to run.
      variables: its parameters.
      test: the sizes that frames are resized to; `tta`, short sides to average over.
      device: where it runs; None: the default one.
      turns: shared by the streams of several devices.
    """
    if test.tta:
        return views.make_stream(system, variables, test, device, turns)
    return run_program(make_program(system, variables, device), test, device, turns)


def make_streams(system: System, variables: dict, test: TestSettings) -> list[Stream]:
    """As `make_stream`, one for each device of this process.

    Each device has the parameters and its own video, and runs what one device alone
    would run, so that results do not depend on how many there are.
    """
    devices, turns = jax.local_devices(), Turns()
    return [make_stream(system, variables, test, one, turns) for one in devices]


def make_program(
    system: System, variables: dict, device: jax.Device | None = None
) -> Program:
    """A system with its variables on a device; compiled when it first runs."""
    on_device = jax.device_put(variables, device)
    start, compiled = jax.jit(system.start), jax.jit(system.step, donate_argnums=1)

    def step(state, clip: Clip) -> tuple[object, Predictions]:
        return compiled(on_device, state, clip)

    return Program(start, step, system.window, system.render, system.limit)

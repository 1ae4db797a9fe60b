"""Builds the function that runs a configured system on videos."""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import jax

from vis_jax.evaluate import views
from vis_jax.evaluate.memory import peak_bytes
from vis_jax.evaluate.stream import Program, run_program
from vis_jax.results.frame import Stream
from vis_jax.structures import Clip, Predictions
from vis_jax.systems.system import System, TestSettings


class Turns:
    """Makes the first run of each program exclusive to one thread.

    A program is thus traced once for all devices. With a compilation cache
    (`commands.parts.keep_compilations`) and programs that do not depend on the device,
    as on GPUs, the other threads load what the first one compiled; otherwise they
    compile at the same time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ran: dict[Hashable, threading.Event] = {}

    @contextmanager
    def turn(self, program: Hashable) -> Iterator[None]:
        """Waits while another thread runs the program for the first time.

        Args:
          program: key of the program, such as the shapes of its arguments.
        """
        with self._lock:
            first = program not in self._ran
            ran = self._ran.setdefault(program, threading.Event())
        if not first:
            ran.wait()
        try:
            yield
        finally:
            ran.set()


def make_stream(system: System, variables: dict, test: TestSettings) -> Stream:
    """Returns the function that runs a system on videos.

    Args:
      system: system to run.
      variables: its parameters.
      test: sizes that frames are resized to; with `tta`, the short sides to average
        over.
    """
    return run(make_program(system, variables), test)


def make_streams(system: System, variables: dict, test: TestSettings) -> list[Stream]:
    """Like `make_stream`, with the programs of `make_programs`."""
    return [run(program, test) for program in make_programs(system, variables)]


def run(program: Program, test: TestSettings) -> Stream:
    """Returns the function that runs a program on videos; see `make_stream`."""
    return (views.run_program if test.tta else run_program)(program, test)


def make_programs(system: System, variables: dict) -> list[Program]:
    """Like `make_program`, with one program for each device of this process.

    Each device holds all parameters and works on its own video with the same program,
    so results do not depend on the number of devices.
    """
    turns = Turns()
    return [
        make_program(system, variables, device, turns) for device in jax.local_devices()
    ]


def make_program(
    system: System,
    variables: dict,
    device: jax.Device | None = None,
    turns: Turns | None = None,
) -> Program:
    """Puts a system and its variables on a device; compilation waits for the first run.

    Args:
      system: to run.
      variables: its parameters.
      device: to run on; None: the default device.
      turns: shared by the programs of several devices.
    """
    on_device, turns = jax.device_put(variables, device), turns or Turns()
    start, compiled = jax.jit(system.start), jax.jit(system.step, donate_argnums=1)

    def start_there(clip: Clip) -> object:
        return jax.device_put(start(clip), device)

    def step(state: object, clip: Clip) -> tuple[object, Predictions]:
        with turns.turn(clip.images.shape):
            return compiled(on_device, state, clip)

    def make_ready(state: object, clip: Clip) -> None:
        with turns.turn(clip.images.shape):
            compiled.lower(on_device, state, clip).compile()  # found by `step`

    def memory(clip: Clip) -> int:
        # The first step with these shapes reuses this trace.
        traced = compiled.trace(on_device, jax.eval_shape(start, clip), clip)
        return peak_bytes(traced.jaxpr)

    window, render, limit = system.window, system.render, system.limit
    return Program(
        start_there, step, window, render, limit, memory=memory, compile=make_ready
    )

"""`train --dry_run --mesh`: estimates an update on many simulated devices."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from vis_jax.commands.numbers import short_number
from vis_jax.settings import to_dict

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings

# Programs that never run need no optimised machine code.
_FLAGS = (
    "--xla_force_host_platform_device_count={devices}"
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false"
)
CHILD = ("-m", "vis_jax.commands.simulated_update")  # arguments of this Python
_ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}


class Report(NamedTuple):
    """Findings of the process with simulated devices."""

    lowered: dict[str, Any]
    compiled: dict[str, Any] | None
    reason: str  # why it did not compile; "" if it did


def read_mesh(config: "RunSettings", text: str) -> "RunSettings":
    """Returns the settings with a mesh parsed from text such as data=64,fsdp=8.

    Raises:
      ValueError: the text is invalid, or the clips of a batch cannot be divided.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    numbers = {name.strip(): value for name, _, value in pairs}
    good = len(numbers) == len(pairs)  # no axis is given twice
    good &= all(re.fullmatch(r"[1-9]\d*", value) for value in numbers.values())
    if not good or "data" not in numbers or not set(numbers) <= {"data", "fsdp"}:
        raise ValueError(f"--mesh: expected data=N,fsdp=N, got {text!r}")
    data, fsdp = int(numbers["data"]), int(numbers.get("fsdp", "1"))
    if config.data.batch_size % (data * fsdp):
        raise ValueError(
            f"data.batch_size: expected a multiple of {data * fsdp}, the devices of"
            f" --mesh, got {config.data.batch_size}; set --config.data.batch_size"
        )
    mesh = dataclasses.replace(config.mesh, data=data, fsdp=fsdp)
    return dataclasses.replace(config, mesh=mesh)


def dry_run_mesh(config: "RunSettings", *, seconds: int) -> None:
    """Prints memory, communication and minimum time of an update, per device.

    Args:
      config: config with explicit mesh lengths; its devices are simulated.
      seconds: time limit for lowering and compiling; 0 = lower only.

    Raises:
      ValueError: settings are inconsistent, or lowering fails.
    """
    devices = config.mesh.data * config.mesh.fsdp
    report = simulate(config, seconds=seconds)
    share = config.data.batch_size // devices
    print(
        f"mesh          data={config.mesh.data}, fsdp={config.mesh.fsdp}: {devices}"
        f" simulated devices, clips on each: {share}"
    )
    if report.compiled is None:
        print(f"compiled      no: {report.reason}")
    _print_memory(report)
    _print_sent(report.compiled)
    flops = short_number(report.lowered["flops"])
    print(f"FLOPs         {flops} of products in an update, on each device")
    _print_chips(report, share)


def simulate(config: "RunSettings", *, seconds: int) -> Report:
    """Lowers and compiles an update in a process with simulated devices.

    Raises:
      ValueError: see `dry_run_mesh`.
    """
    devices = config.mesh.data * config.mesh.fsdp
    flags = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS.format(devices=devices)}"
    process = subprocess.Popen(
        [sys.executable, *CHILD],
        env=os.environ | _ENVIRONMENT | {"XLA_FLAGS": flags},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wanted = json.dumps({"config": to_dict(config), "compile": seconds > 0})
    reason = ""
    try:
        output, errors = process.communicate(wanted, timeout=seconds or None)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        reason = f"it takes more than --compile_seconds={seconds}"
    finally:
        process.kill()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    for line in lines:
        if "error" in line:
            raise ValueError(line["error"])
    last = reason or " ".join(errors.split())[-300:] or f"code {process.returncode}"
    if not lines:
        raise ValueError(f"--mesh: cannot lower the update: {last}")
    if len(lines) > 1:
        return Report(lines[0], lines[1], "")
    if seconds == 0:
        reason = "--compile_seconds is 0"
    elif not reason:
        reason = f"code {process.returncode}, -9 where memory runs out: {last}"
    return Report(lines[0], None, reason)


def _print_memory(report: Report) -> None:
    for name, size in report.lowered["stored"].items():
        print(f"{name:<13} {short_number(size):>6}B on each device")
    if report.compiled is None:
        size = short_number(report.lowered["working"])
        print(
            f"activations   {size:>6}B, an estimate: all that autodiff stores, gathered"
            " parameters,\n              gradients; XLA may recompute some of it, and"
            " needs working space"
        )
        return
    arguments, working = report.compiled["arguments"], report.compiled["working"]
    print(
        f"activations   {short_number(working):>6}B, and whatever else lives only"
        f" during the update\nall           {short_number(arguments + working):>6}B"
    )


def _print_sent(compiled: dict[str, Any] | None) -> None:
    if compiled is None:
        print("sent          unknown: that needs the compiled program")
        return
    for kind, (times, sent) in compiled["sent"].items():
        print(f"sent          {short_number(sent):>6}B in {times} x {kind}")
    if not compiled["sent"]:
        print("sent          nothing")


def _print_chips(report: Report, share: int) -> None:
    from vis_jax.training.chips import CHIPS, Roofline

    found = report.compiled or report.lowered
    needed = sum(report.lowered["stored"].values()) + report.lowered["working"]
    if report.compiled is not None:
        needed = report.compiled["arguments"] + report.compiled["working"]
    print(
        "\nleast time of an update in ms, at the peak of each chip; see docs/scaling.md"
        "\nchip   fits  compute  memory  exchange     step"
        "  clips/s of a chip"
    )
    for name, values in found["chips"].items():
        line = Roofline(*values)
        fits = "yes" if needed <= CHIPS[name].memory else "no"
        compute, memory, exchange = (1000 * one for one in line)
        sent = f"{exchange:8.2f}" if report.compiled is not None else f"{'?':>8}"
        print(
            f"{name:<6} {fits:<4} {compute:8.2f} {memory:7.2f}  {sent}"
            f" {1000 * line.least:8.2f}  {share / line.least:.0f}"
        )

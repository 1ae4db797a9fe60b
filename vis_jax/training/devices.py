"""Chooses the local devices of a process."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import jax

GPUS = Path("/proc/driver/nvidia/gpus")  # one folder per GPU of the machine


def device_line(environ: Mapping[str, str] = os.environ) -> str:
    """Formats "devices       8 of 8 local, 16 in all"."""
    local = jax.local_device_count()
    visible = gpus_here(environ) if jax.default_backend() == "gpu" else local
    processes = jax.process_count()
    more = f", {processes} processes" if processes > 1 else ""
    return (
        f"devices       {local} of {max(local, visible)} local, {jax.device_count()} in"
        f" all{more}"
    )


def gpus_here(environ: Mapping[str, str]) -> int:
    """Returns the number of GPUs visible to this process; 0 if none or unknown."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip()])
    if environ.get("SLURM_GPUS_ON_NODE", "").isdecimal():
        return int(environ["SLURM_GPUS_ON_NODE"])
    return len(list(GPUS.iterdir())) if GPUS.is_dir() else 0


def slurm_device_ids(environ: Mapping[str, str]) -> list[int] | None:
    """Returns this task's share of the visible GPUs; None leaves the choice to JAX.

    JAX by default takes one GPU per task, however many there are.
    """
    tasks, gpus = tasks_here(environ), gpus_here(environ)
    if environ.get("JAX_LOCAL_DEVICE_IDS") or gpus == 0:
        return None
    if gpus == 1:  # Slurm shows each task only its own GPU
        return [0]
    if tasks is None or gpus % tasks:
        return None
    share, first = gpus // tasks, int(environ.get("SLURM_LOCALID", "0"))
    return list(range(first * share, (first + 1) * share))


def tasks_here(environ: Mapping[str, str]) -> int | None:
    """Parses the step's tasks on this node, e.g. from "2(x3),1"; None if not given."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get(
        "SLURM_TASKS_PER_NODE", ""
    )
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if found is None:
            return None
        counts += [int(found[1])] * int(found[2] or 1)
    node = int(environ.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else None

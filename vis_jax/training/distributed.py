"""Initialises and synchronises multi-process runs."""

import os
from collections.abc import Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from vis_jax.training import jax_messages
from vis_jax.training.devices import slurm_device_ids
from vis_jax.training.together import leave_at_exit, lost_after, watch_others

FIELDS = {
    "coordinator": "VIS_JAX_COORDINATOR",
    "num_processes": "VIS_JAX_NUM_PROCESSES",
    "process_id": "VIS_JAX_PROCESS_ID",
}
JAX_LATER = 30  # seconds that JAX waits longer than `watch_others` for a lost process
LONGEST_WAIT = 24 * 60 * 60  # seconds


def initialise_distributed() -> bool:
    """Joins the other processes of this run, if there are any.

    Call it before anything else touches a device. Tried in order: an address in the
    environment (VIS_JAX_COORDINATOR as "host:port", VIS_JAX_NUM_PROCESSES,
    VIS_JAX_PROCESS_ID); several tasks started by `srun`; several hosts of a TPU slice;
    VIS_JAX_DISTRIBUTED=auto, which lets JAX detect the cluster, as in launch/tpu.sh.
    Otherwise the process runs alone.

    Returns:
      True if there are other processes.

    Raises:
      ValueError: if only some of the three are given; also see `lost_after`.
    """
    address = explicit_address(os.environ)
    if address is None and is_one_of_several(os.environ):
        # JAX asks Slurm, or the TPU's metadata.
        address = {"local_device_ids": slurm_device_ids(os.environ)}
    if address is not None:
        # JAX sends heartbeats at half this interval and may miss a process after that.
        heartbeat = 2 * int(lost_after()) + JAX_LATER
        jax_messages.shorten()
        leave_at_exit()
        jax.distributed.initialize(**address, heartbeat_timeout_seconds=heartbeat)
    watch_others()
    return jax.process_count() > 1


def wait_for_all(what: str) -> None:
    """Blocks until every process has called it, for at most a day.

    Args:
      what: name of the barrier, unique within a run.
    """
    if jax.process_count() > 1:
        # With named processes Orbax synchronises through the coordinator; without, by a
        # program on the devices, which times out within a minute.
        everybody = set(range(jax.process_count()))
        ocp.multihost.sync_global_processes(
            what, timeout=LONGEST_WAIT, processes=everybody
        )


def all_agree(fine: bool) -> bool:
    """Returns True if `fine` is true in all processes; all must call it."""
    if jax.process_count() == 1:
        return fine
    return bool(multihost_utils.process_allgather(np.array(fine)).all())


def explicit_address(environ: Mapping[str, str]) -> dict | None:
    """Returns arguments of `jax.distributed.initialize` from the environment, or None.

    Raises:
      ValueError: see `initialise_distributed`.
    """
    given = {name: environ[key] for name, key in FIELDS.items() if environ.get(key)}
    if not given:
        return None
    if set(given) != set(FIELDS):
        raise ValueError(
            f"environment: expected all of {sorted(FIELDS.values())}, got"
            f" {sorted(FIELDS[name] for name in given)}"
        )
    return {
        "coordinator_address": given["coordinator"],
        "num_processes": int(given["num_processes"]),
        "process_id": int(given["process_id"]),
    }


def is_one_of_several(environ: Mapping[str, str]) -> bool:
    """Returns whether JAX can detect the other processes itself.

    Raises:
      ValueError: on a value of VIS_JAX_DISTRIBUTED other than "auto".
    """
    asked = environ.get("VIS_JAX_DISTRIBUTED", "")
    if asked not in ("", "auto"):
        raise ValueError(
            f"VIS_JAX_DISTRIBUTED: expected 'auto' or nothing, got {asked!r}"
        )
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    hosts = [
        name for name in environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if name
    ]
    return asked == "auto" or tasks > 1 or len(hosts) > 1

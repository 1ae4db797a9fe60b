"""Reports what this machine and this installation can do, and what is missing.

Devices are tried with a small computation. A line that begins with ! reports something
that does not work; the exit code is then 2.

examples:
  python -m vis_jax.main doctor
  python -m vis_jax.main doctor --workdir runs/shapes
"""

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from absl import flags

from vis_jax import __version__

GIGABYTE = 1e9
LITTLE = 5.0  # GB of free disk below which a run may not find room
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("tensorflow-cpu", "tensorflow", "av", "pillow"),
)
CODECS = ("h264", "hevc", "vp9", "av1")  # the most common ones
VARIABLES = ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "XLA_FLAGS", "LD_LIBRARY_PATH")


class CheckResult(NamedTuple):
    """Result of one check."""

    name: str
    text: str
    fine: bool = True


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    flags.DEFINE_string(
        "workdir", ".", "folder whose disk is checked", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Prints a line per check.

    Raises:
      ValueError: a check failed.
    """
    from vis_jax.paths import on_disk

    workdir = os.fspath(on_disk("--workdir", values.workdir))
    wrong = []
    for line in look(workdir):
        print(f"{' ' if line.fine else '!'} {line.name:<14}{line.text}", flush=True)
        wrong += [] if line.fine else [line.name]
    if wrong:
        raise ValueError(
            f"doctor: expected all checks to pass, got ! at {', '.join(wrong)}"
        )


def look(workdir: str) -> Iterator[CheckResult]:
    """Yields all lines; missing components raise no error."""
    yield from versions()
    yield machine()
    yield from environment()
    yield from tried("devices", devices)
    yield plugins()
    yield from tried("videos", codecs)
    yield from (disk(name, path) for name, path in places(workdir))
    yield from extras()


def tried(
    name: str, lines: Callable[[], Sequence[CheckResult]]
) -> Sequence[CheckResult]:
    """Runs a check; returns a line with the error if it fails."""
    try:
        return lines()
    except Exception as error:  # any library may fail, which is to be reported
        text = " ".join(str(error).split()) or type(error).__name__
        return [CheckResult(name, f"{type(error).__name__}: {text:.300}", False)]


def versions() -> list[CheckResult]:
    """Lists versions of this library, Python and the dependencies."""
    found = [(name, version_of(name)) for name in PACKAGES]
    texts = [f"{name} {version}" for name, version in found if version]
    installed = {name for name, version in found if version}
    tensorflow = installed & {"tensorflow", "tensorflow-cpu"}
    missing = [name for name in PACKAGES if name not in installed]
    if tensorflow:  # one of the two is enough
        missing = [name for name in missing if not name.startswith("tensorflow")]
    system = f"{platform.system()} {platform.machine()}"
    return [
        CheckResult(
            "vis_jax",
            f"{__version__}, Python {platform.python_version()}, {system}",
        ),
        CheckResult("packages", ", ".join(texts)),
        *(
            CheckResult("packages", f"{name} is not installed", False)
            for name in missing
        ),
    ]


def version_of(package: str) -> str | None:
    """Returns the version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> CheckResult:
    """Reports usable cores, and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIGABYTE
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return CheckResult("machine", f"{cores} of {os.cpu_count()} cores, {memory:.0f} GB")


def environment() -> list[CheckResult]:
    """Lists environment variables that affect JAX."""
    return [
        CheckResult("environment", f"{name}={os.environ[name].strip()}")
        for name in VARIABLES
        if name in os.environ
    ]


def devices() -> list[CheckResult]:
    """Lists JAX devices, after a small computation on each."""
    import jax
    import jax.numpy as jnp

    from vis_jax.training.devices import gpus_here

    lines = []
    for device in jax.local_devices():
        total = float(jnp.arange(8, device=device).sum())
        memory = (device.memory_stats() or {}).get("bytes_limit")
        size = f", {memory / GIGABYTE:.0f} GB" if memory else ""
        name = f"{device.platform} {device.id}: {device.device_kind}{size}"
        lines.append(CheckResult("devices", name, total == 28.0))
    gpus = gpus_here(os.environ)
    if gpus and jax.default_backend() == "cpu":
        text = f"the machine has GPUs ({gpus}), JAX sees none: pip install '.[cuda13]'"
        lines.append(CheckResult("devices", text, False))
    return lines


def plugins() -> CheckResult:
    """Lists JAX plugins for devices other than the CPU."""
    found = importlib.metadata.entry_points(group="jax_plugins")
    texts = [
        f"{one.name} {one.dist.version}" if one.dist else one.name for one in found
    ]
    return CheckResult("plugins", ", ".join(sorted(texts)) or "none: the CPU alone")


def codecs() -> list[CheckResult]:
    """Reports codecs that PyAV can read, and the encoder of predict."""
    import av

    from vis_jax.predict.sinks import CODECS as WRITERS

    found = [name for name in CODECS if name in av.codecs_available]
    missing = [name for name in CODECS if name not in found]
    text = f"reads {', '.join(found)}" + (f"; not {', '.join(missing)}" * bool(missing))
    writer = next((name for name in WRITERS if name in av.codecs_available), None)
    return [
        CheckResult("videos", text, bool(found)),
        CheckResult("videos", f"writes mp4 with {writer}", writer is not None),
    ]


def places(workdir: str) -> list[tuple[str, str]]:
    """Lists folders that programs write to."""
    return [("disk", workdir), ("temporary", tempfile.gettempdir())]


def disk(name: str, path: str) -> CheckResult:
    """Reports free disk space for a folder, or its first existing parent."""
    place = os.path.abspath(path)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free / GIGABYTE
    writable = os.access(place, os.W_OK)
    text = f"{free:.0f} GB free in {place}{'' if writable else ', not writable'}"
    return CheckResult(name, text, writable and free >= LITTLE)


def extras() -> list[CheckResult]:
    """Lists the extras of setup.cfg and their missing packages, not as failures."""
    lines = []
    for name, packages in sorted(optional_packages().items()):
        missing = [one for one in packages if version_of(one) is None]
        text = f"needs {', '.join(missing)}" if missing else "installed"
        lines.append(CheckResult(f"[{name}]", text))
    return lines


def optional_packages(package: str = "vis_jax") -> dict[str, list[str]]:
    """Returns packages by extra, from the metadata of the installation.

    A package with extras, such as jax[cuda12], includes those.
    """
    try:
        requirements = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for text in requirements:
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", text)
        needed = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", text)
        if extra is None or needed is None:
            continue
        packages = found.setdefault(extra[1], [])
        packages.append(needed[1])
        if needed[2]:
            inner = optional_packages(needed[1])
            packages += [
                one for name in needed[2].split(",") for one in inner.get(name, [])
            ]
    return found

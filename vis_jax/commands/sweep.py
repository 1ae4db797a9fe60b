"""Trains a config with several seeds, one run after another, and compares the scores.

Each run has its own process and its own folder seed_0, seed_1, .. in --workdir;
finished runs are not trained again, and interrupted ones resume. At the end it prints a
table with mean and sample standard deviation, and writes sweep.json.

examples:
  python -m vis_jax.main sweep --config configs/ifr_shapes.py --workdir runs/sweep
  python -m vis_jax.main sweep --config ifr_shapes --workdir runs/sweep --seeds 5 \\
      --config.optimizer.learning_rate=5e-4
"""

import dataclasses
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from vis_jax.commands.config_file import read_json, saved_in
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.parts import CACHE_FOLDER
from vis_jax.formats.disk import replacing
from vis_jax.paths import on_disk

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings

TABLE_FILE = "sweep.json"
# All runs share a cache, as the update does not depend on the seed.
_CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
}


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    flags.DEFINE_string(
        "workdir", None, "folder of the sweep, on a disk", flag_values=values
    )
    flags.DEFINE_integer(
        "seeds",
        3,
        "number of runs; seeds count up from the `seed` of the config",
        lower_bound=1,
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Trains the unfinished runs, and prints the table."""
    if not values.workdir:
        raise ValueError("--workdir: expected a folder for the sweep, got none")
    folder, config = on_disk("--workdir", values.workdir), read_config(values)
    _keep_settings(config, folder)
    seeds = [config.seed + number for number in range(values.seeds)]
    for number, seed in enumerate(seeds, 1):
        place = folder / f"seed_{seed}"
        head = f"sweep         seed {seed} ({number} of {len(seeds)}): {place}"
        if is_finished(config, place):
            print(f"{head}, finished", flush=True)
            continue
        print(head, flush=True)
        _prepare(dataclasses.replace(config, seed=seed), place)
        code = train(place, folder)
        if code != 0:
            again = f"python -m vis_jax.main sweep --workdir {shlex.quote(str(folder))}"
            text = f"sweep: seed {seed} ended with code {code}; to go on: {again}"
            print(f"{text} --seeds {len(seeds)}", file=sys.stderr)
            raise SystemExit(code)
    scores = [scores_of(config, folder / f"seed_{seed}") for seed in seeds]
    summary = summarise(seeds, scores)
    with replacing(folder / TABLE_FILE) as file:
        file.write(json.dumps(summary, indent=2) + "\n")
    print(table(summary))
    print(f"table         {folder / TABLE_FILE}")


def _keep_settings(config: "RunSettings", folder: Path) -> None:
    """Writes config.json of a new sweep.

    Raises:
      ValueError: the folder has a sweep with other settings, or belongs to a run.
    """
    from vis_jax.training.changes import as_saved, differences
    from vis_jax.training.run_config import write_config

    path = Path(saved_in(folder))
    if (folder / "checkpoints").exists():
        raise ValueError(f"{folder}: expected a folder for a sweep, got that of a run")
    if not path.exists():
        write_config(config, str(folder))
        return
    found = differences(read_json(path), as_saved(config))
    if found:
        texts = "; ".join(f"{one.name}: {one.before} -> {one.after}" for one in found)
        raise ValueError(
            f"{path}: expected the settings of the sweep in this folder, got {texts}"
        )


def _prepare(config: "RunSettings", place: Path) -> None:
    """Creates the folder of a new run, with its settings."""
    from vis_jax.training.run_config import write_config

    if not Path(saved_in(place)).exists():
        write_config(config, str(place))


def train(place: Path, folder: Path) -> int:
    """Trains in a child process; signals are forwarded, and it saves before exiting.

    Args:
      place: folder of the run.
      folder: folder of the sweep.

    Returns:
      Its exit code; 128 + number if killed by a signal.
    """
    cache = {**_CACHE, "JAX_COMPILATION_CACHE_DIR": str(folder / CACHE_FOLDER)}
    process: subprocess.Popen | None = None
    early: list[int] = []  # signals that came before there was a process

    def pass_on(number: int, frame: object) -> None:
        del frame
        if process is None:
            early.append(number)
        elif number != signal.SIGINT:  # a terminal sends that to both by itself
            process.send_signal(number)

    watched = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, pass_on) for number in watched}
    try:
        process = subprocess.Popen(command_of(place), env={**cache, **os.environ})
        for number in early:
            process.send_signal(number)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def command_of(place: Path) -> list[str]:
    """Returns the command that starts or resumes a run."""
    return [sys.executable, "-m", "vis_jax.main", "train", "--workdir", str(place)]


def is_finished(config: "RunSettings", place: Path) -> bool:
    """Returns whether all evaluations of the last step exist."""
    return all(path.exists() for path in _score_files(config, place).values())


def scores_of(config: "RunSettings", place: Path) -> dict[str, float]:
    """Returns the fractional metrics of a run's last evaluations, by name."""
    from vis_jax.scoring import METRICS

    return {
        f"{prefix}{metric}": float(scores[metric])
        for prefix, path in _score_files(config, place).items()
        for scores in [read_json(path)]
        for metric in METRICS
        if isinstance(scores.get(metric), int | float)
    }


def _score_files(config: "RunSettings", place: Path) -> dict[str, Path]:
    """Returns the scores.json files by metric prefix."""
    folders = {"": place / "evaluation"} | {
        f"{name}/": place / "evaluation" / name for name in config.evals
    }
    step = f"step_{config.num_steps}"
    return {key: path / step / "scores.json" for key, path in folders.items()}


def summarise(seeds: Sequence[int], scores: Sequence[Mapping[str, float]]) -> dict:
    """Computes mean and spread of each metric that all runs have.

    Args:
      seeds: seeds of the runs.
      scores: metrics of each run.

    Returns:
      `seeds` and `metrics`, by name: values, mean, std (None for one run).
    """
    names = [name for name in scores[0] if all(name in one for one in scores)]
    metrics = {}
    for name in names:
        values = [one[name] for one in scores]
        spread = statistics.stdev(values) if len(values) > 1 else None
        mean = statistics.fmean(values)
        metrics[name] = {"values": values, "mean": mean, "std": spread}
    return {"seeds": list(seeds), "metrics": metrics}


def table(summary: Mapping) -> str:
    """Formats a line per metric, in percent."""
    metrics = summary["metrics"]
    width = max(map(len, ["in percent", *metrics]))
    heads = [*(f"seed {seed}" for seed in summary["seeds"]), "mean", "std"]
    lines = [f"{'in percent':<{width}}" + "".join(f"{head:>9}" for head in heads)]
    for name, row in metrics.items():
        numbers = [*row["values"], row["mean"], row["std"]]
        texts = ("-" if one is None else f"{100 * one:.1f}" for one in numbers)
        lines.append(f"{name:<{width}}" + "".join(f"{text:>9}" for text in texts))
    return "\n".join(lines)

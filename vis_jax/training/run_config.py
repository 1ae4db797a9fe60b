"""What the loop reads of a config, and the config beside a run."""

import json
from typing import Any

import jax
from etils import epath

from vis_jax.settings import CONFIG_FILE, Count, Natural, section, to_dict
from vis_jax.training.optimizer import AdamW, Settings


@section
class TrainSettings:
    """`train`: what happens when; numbers are updates."""

    log_every: Count = 20  # a line of progress
    checkpoint_every: Count = 500  # the state, from which a run goes on
    keep: Count = 3  # checkpoints, the newest
    image_every: Natural = 1_000  # pictures for TensorBoard; 0 = never
    eval_every: Natural = 0  # evaluation on `test`; 0 = at the end only
    # Metric of an evaluation whose best checkpoint is kept in best/, the higher the
    # better: AP for that on `test`, NAME/AP for evals.NAME; "" = none is kept.
    best: str = ""


@section
class RunSettings:
    """All that the loop reads of a config."""

    seed: Natural = 0  # of parameters, clips and noise
    num_steps: Count  # updates of the run
    init_from: str = ""  # checkpoint to start from; "" = random parameters
    # Regexes over paths of parameters that are not taken from `init_from`.
    init_fresh: tuple[str, ...] = ()
    optimizer: Settings = AdamW()
    train: TrainSettings = TrainSettings()


def write_config(config: Any, workdir: str) -> None:
    """Writes settings as `workdir/config.json`, whole or not at all, in process 0."""
    if jax.process_index() > 0:
        return
    folder = epath.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{CONFIG_FILE}.tmp"
    temporary.write_text(json.dumps(to_dict(config), indent=2) + "\n")
    temporary.replace(folder / CONFIG_FILE)

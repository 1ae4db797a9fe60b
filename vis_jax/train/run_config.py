"""The part of a config that the loop reads: checked first, written beside the run."""

import jax
from etils import epath
from ml_collections import ConfigDict

LEAST = {
    "log_every": 1,
    "checkpoint_every": 1,
    "keep": 1,
    "image_every": 0,  # 0: never
    "eval_every": 0,  # 0: at the end only
}


def check_config(config: ConfigDict) -> None:
    """Raises ValueError unless `num_steps` and `train` are integers in range."""
    fields = {f"train.{name}": (config.train[name], low) for name, low in LEAST.items()}
    for name, (value, low) in {"num_steps": (config.num_steps, 1), **fields}.items():
        if not isinstance(value, int) or value < low:
            raise ValueError(f"{name}: expected an integer >= {low}, got {value!r}")


def write_config(config: ConfigDict, workdir: str) -> None:
    """Writes `workdir/config.json`, whole or not at all, in the first process."""
    if jax.process_index() > 0:
        return
    folder = epath.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "config.json.tmp"
    temporary.write_text(config.to_json_best_effort(indent=2) + "\n")
    temporary.replace(folder / "config.json")

"""Predicts every video of a data set and scores the result.

Writes results.json, truth.json and scores.json; stopped, it goes on where it was.

examples:
  python -m vis_jax.main evaluate --workdir runs/shapes --output runs/shapes/test \\
      --config.test.split=test
  python -m vis_jax.main evaluate --config configs/ifr_r50.py --checkpoint r50 \\
      --config.data.root=/data/ytvis2019 --output out
"""

import hashlib
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from vis_jax.commands import settings


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    settings.define_config(values, arguments)
    texts = {
        "workdir": "folder of a training run; gives config and checkpoint",
        "checkpoint": "folder of a checkpoint; default: the newest of --workdir",
        "output": "folder for results.json, truth.json, scores.json;"
        " default: evaluation/<split> in --workdir",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)


def run(values: flags.FlagValues, words: list[str]) -> None:
    """Evaluates."""
    from data_pipeline.datasets import make_dataset

    config = settings.read_config(values)
    checkpoint = values.checkpoint or values.workdir
    if not checkpoint:
        raise ValueError("--checkpoint: expected a checkpoint or --workdir, got none")
    if not (values.output or values.workdir):
        raise ValueError("--output: expected a folder for the results, got none")
    dataset = make_dataset(config.data, config.test.split)
    settings.set_classes(config, len(dataset.categories))
    system = settings.build_system(config)
    variables = settings.load_model(system, checkpoint)
    output = values.output or Path(values.workdir) / "evaluation" / config.test.split
    evaluate_split(config, system, variables, Path(output), run_id=str(checkpoint))


def evaluate_split(
    config: ConfigDict, system, variables: dict, output: Path, *, run_id: str
) -> dict:
    """Scores a system on the split that `config.test` names, and prints the table."""
    from data_pipeline.datasets import make_dataset
    from data_pipeline.datasets.head import Head
    from vis_jax.evaluate.infer import make_infer
    from vis_jax.evaluate.loop import RESULTS, SCORES, evaluate
    from vis_jax.score import format_table

    dataset = make_dataset(config.data, config.test.split)
    dataset = Head(dataset, config.test.videos)
    infer = make_infer(system, variables, config.test)
    settings_of_run = config.to_json_best_effort(sort_keys=True) + run_id
    digest = hashlib.sha256(settings_of_run.encode()).hexdigest()
    report = evaluate(dataset, infer, output, run_id=digest)
    print(format_table({k: v for k, v in report.items() if k != "videos"}))
    print(f"results       {output / RESULTS}\nscores        {output / SCORES}")
    return report

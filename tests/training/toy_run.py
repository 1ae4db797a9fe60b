"""Runs one process of the toy system; prints its losses as JSON.

    python -m tests.training.toy_run '{"workdir": "run", "config": {"num_steps": 6}}'

Other fields: `signal` and `signal_at`: sends itself a signal while reading that batch;
`error_at`: fails to read that batch; `features` of the system; `process_id`,
`num_processes` and `port` of a run with several processes; `evaluate`: folder for an
evaluation at the end; `bucket`: folder of the addresses `bucket://`.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import jax
import numpy as np

from data_pipeline.moving_shapes.dataset import MovingShapes
from data_pipeline.settings import Settings as DataSettings
from tests.stand_in_bucket import Bucket
from tests.training.toy_system import CLIPS, toy_batches, toy_config, toy_system
from vis_jax.commands.evaluate import (
    check_seen_by_all,
    evaluate_split,
    evaluate_together,
)
from vis_jax.commands.processes import all_texts, own_share
from vis_jax.commands.saved_model import SavedModel
from vis_jax.evaluate.partial_folder import partial_folder
from vis_jax.main import fail
from vis_jax.paths import is_remote
from vis_jax.systems.system import TestSettings
from vis_jax.training.distributed import FIELDS, initialise_distributed
from vis_jax.training.loop import train
from vis_jax.training.sharding import whole
from vis_jax.training.writer import Writer


class Recorder(Writer):
    """Logger that records its input."""

    def __init__(self):
        self.losses, self.evaluations, self.drawn, self.messages = {}, {}, {}, []
        self.scores, self.notes = [], {}

    def progress(self, step, values, notes):
        self.losses[step], self.notes[step] = values["loss"], notes

    def scalars(self, step, values, *, group):
        self.evaluations[step] = values
        self.scores.append((step, group, values))

    def images(self, step, images):
        self.drawn[step] = images

    def message(self, text):
        self.messages.append(text)


class Evaluated(NamedTuple):
    """Fields of a config that an evaluation reads."""

    data: DataSettings
    test: TestSettings


def evaluate(output: str) -> None:
    """Evaluates the untrained toy system in all processes and on all devices."""
    dataset = MovingShapes("val", num_videos=9, height=32, width=48, length=5)
    classes = [(one.category_id, one.name) for one in dataset.categories]
    system, data = toy_system(), DataSettings(name="moving_shapes")
    config = Evaluated(data, TestSettings(short_side=32))
    variables = jax.device_get(system.init(jax.random.key(0), None))
    model = SavedModel(config, tuple(classes), system, variables)
    with patch("vis_jax.commands.evaluate.fingerprint", lambda *unused: "toy"):
        several = jax.process_count() > 1
        if several and not is_remote(output):
            check_seen_by_all(Path(output))
        with partial_folder(output, own_share()) as partial:
            if several:
                evaluate_together(model, dataset, partial)
            else:
                evaluate_split(config, system, variables, dataset, partial)


def run(options: dict) -> dict:
    """Trains with the options of the command line; returns the output."""
    processes, index = options.get("num_processes", 1), options.get("process_id", 0)
    if processes > 1:
        values = (f"127.0.0.1:{options['port']}", processes, index)
        names = FIELDS.values()
        os.environ.update(zip(names, map(str, values), strict=True))
        initialise_distributed()
    clips = CLIPS // processes
    share = slice(index * clips, (index + 1) * clips)
    recorder = Recorder()

    def batches(start):
        for number, batch in enumerate(toy_batches(start, share=share), start):
            if number == options.get("signal_at"):
                os.kill(os.getpid(), options["signal"])
            if number == options.get("error_at"):
                raise ValueError(f"batch {number} is broken")
            time.sleep(options.get("seconds_per_step", 0.0))
            yield batch

    config = toy_config(**options.get("config", {}))
    system = toy_system(features=options.get("features", 3))
    try:
        state = train(config, system, batches, options["workdir"], writer=recorder)
        variables = whole(state.variables)
        kernel = np.asarray(variables["params"]["head"]["kernel"])
        stats = variables["batch_stats"]["norm"]
    except SystemExit as leaving:
        print(json.dumps({"losses": recorder.losses, "messages": recorder.messages}))
        raise leaving
    if "bucket" in options:
        Bucket.folder = Path(options["bucket"])
    if "evaluate" in options:
        evaluate(options["evaluate"])
    report = {"losses": recorder.losses, "kernel": kernel.tolist()}
    report |= {name: np.asarray(value).tolist() for name, value in stats.items()}
    report |= {"texts": all_texts("toy", [f"from {index}"])}
    return report | {"devices": jax.device_count()}


if __name__ == "__main__":
    try:
        print(json.dumps(run(json.loads(sys.argv[1]))))
    except ValueError as error:  # like the command line
        sys.exit(fail(str(error)))

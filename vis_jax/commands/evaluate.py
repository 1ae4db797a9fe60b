"""Predicts every video of a data set and scores the result.

Writes results.json, truth.json and scores.json; an interrupted run resumes where it
stopped. All devices of the machine are used, each for a different video.

On several hosts, start the same command on each of them, as for training
(docs/training.md); each host gets a share of the videos, and --output must be on a
disk shared by all, or in a bucket. In a job array, without a network between the tasks,
give each task --shard NUMBER/COUNT (with `sbatch --array=1-16`:
$SLURM_ARRAY_TASK_ID/16), and run the command once with --merge when all are done. The
results are the same in every case.

examples:
  python -m vis_jax.main evaluate --workdir runs/shapes --output runs/shapes/test \\
      --config.test.split=test --report report.html
  python -m vis_jax.main evaluate --config configs/ifr_r50.py --checkpoint r50 \\
      --config.data.root=/data/ytvis2019 --output out
  python -m vis_jax.main evaluate --workdir runs/r50 --shard 3/16
  python -m vis_jax.main evaluate --workdir runs/r50 --merge
"""

import hashlib
import json
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from etils import epath

from vis_jax.commands import parts
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.evaluate_report import check_report, write_report
from vis_jax.settings import to_dict

if TYPE_CHECKING:
    from data_pipeline.datasets.first_videos import FirstVideos
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.commands.saved_model import SavedModel
    from vis_jax.evaluate.partial_folder import PartialFolder
    from vis_jax.evaluate.shares import Share
    from vis_jax.systems.system import System


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    texts = {
        **parts.MODEL_FLAGS,
        "output": "folder for results.json, truth.json, scores.json;"
        " default: evaluation/<split> in --workdir",
        "shard": "NUMBER/COUNT, such as 3/16: predict only this part of the videos;"
        " numbers go from 1 to COUNT; writes a partial file to --output for --merge",
        "report": "self-contained HTML file: masks beside the ground truth, identity"
        " switches, curves, AP lost to each type of error; the worst videos first",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_bool(
        "merge",
        False,
        "merge and score the partial files of --shard in --output; names shards that"
        " are missing, unfinished, or of another config, checkpoint or COUNT",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Runs the evaluation."""
    from vis_jax.commands.processes import together
    from vis_jax.evaluate.shares import read_share

    config = read_config(values)
    checkpoint = parts.checkpoint_of(values)
    if not (values.output or values.workdir):
        raise ValueError("--output: expected a folder for the results, got none")
    if values.merge and values.shard:
        raise ValueError(
            f"--merge: expected it alone, once all shards are done, got --shard"
            f" {values.shard} with it"
        )
    share = read_share(values.shard) if values.shard else None
    if values.report:
        check_report(values.report, shard=values.shard)
    with together():
        _evaluate(config, checkpoint, values, share)


def _evaluate(
    config: "RunSettings",
    checkpoint: str,
    values: flags.FlagValues,
    share: "Share | None",
) -> None:
    """Runs the evaluation with validated flags."""
    import jax

    from vis_jax.commands.processes import check_alone, own_share
    from vis_jax.commands.saved_model import make_model
    from vis_jax.evaluate.partial_folder import partial_folder

    folder = epath.Path(values.workdir or "") / "evaluation" / config.test.split
    output = values.output or folder
    several = jax.process_count() > 1
    if share is not None or values.merge:
        check_alone("--shard, --merge")
    own = None if values.merge else share or own_share()
    with partial_folder(output, own) as partial:
        if share is not None:
            check_array(partial.path, share)
        elif several and not partial.remote:
            check_seen_by_all(partial.path)
        parts.keep_compilations(values.workdir)
        dataset = open_split(config)
        classes = [(one.category_id, one.name) for one in dataset.categories]
        model = make_model(config, classes, checkpoint)
        if several:
            evaluate_together(model, dataset, partial, page=values.report)
        elif share is not None:
            run_id = fingerprint(model.config, model.variables)
            evaluate_shard(model, dataset, partial, run_id=run_id, share=share)
        elif values.merge:
            merge_shards(model, dataset, partial, page=values.report)
        else:
            evaluate_split(
                model.config,
                model.system,
                model.variables,
                dataset,
                partial,
                page=values.report,
            )


def open_split(config: "RunSettings") -> "FirstVideos":
    """Opens the videos named by `config.test`.

    Raises:
      ValueError: there are none.
    """
    from data_pipeline.datasets.by_name import make_dataset
    from data_pipeline.datasets.first_videos import FirstVideos

    return FirstVideos(make_dataset(config.data, config.test.split), config.test.videos)


def evaluate_split(
    config: "RunSettings",
    system: "System",
    variables: dict,
    dataset: "FirstVideos",
    partial: "PartialFolder",
    *,
    page: str | None = None,
) -> dict:
    """Scores a system on a data set, and prints the table.

    Args:
      config: config of the run; `test` has the inference settings.
      system: system from `parts.build_system`.
      variables: NumPy arrays.
      dataset: data set from `open_split`.
      partial: of the output folder.
      page: file for the report, if requested.
    """
    from vis_jax.evaluate.infer import make_streams
    from vis_jax.evaluate.loop import evaluate
    from vis_jax.evaluate.shares import WHOLE

    try:
        numbers = evaluate(
            dataset,
            make_streams(system, variables, config.test),
            partial.path,
            top=config.test.top,
            run_id=fingerprint(config, variables),
            progress=sys.stderr.isatty(),
            tell=partial.keeping(WHOLE, lambda count: None),
        )
    finally:
        partial.keep(WHOLE)
    _publish(numbers, config, dataset, partial, page)
    return numbers


def _publish(
    numbers: dict,
    config: "RunSettings",
    dataset: "FirstVideos",
    partial: "PartialFolder",
    page: str | None,
) -> None:
    """Copies the results to a bucket, prints the table, and writes the report."""
    partial.publish()
    print_report(numbers, partial.output, tested_on(config, dataset))
    if page is not None:
        write_report(page, partial.path, dataset, numbers)


def tested_on(config: "RunSettings", dataset: "FirstVideos") -> str:
    """Describes the evaluated videos in one line: held out, or seen in training.

    Args:
      config: config of the run.
      dataset: data set from `open_split`.
    """
    data, split, count = config.data, config.test.split, len(dataset.videos)
    videos = f"{count} video{'s' if count != 1 else ''}"
    drawn = data.name == "moving_shapes"
    if split == "held_out":
        return f"tested on     {videos} held out of {'val' if drawn else data.split}"
    if split in ("train", "all", data.split):
        return (
            f"tested on     {videos} of {data.split}, the training set: this says"
            " nothing about other videos"
        )
    return f"tested on     {videos} of {split}"


def print_report(report: dict, output: epath.PathLike, heading: str) -> None:
    """Prints a heading, the table of an evaluation, and the location of its files."""
    from vis_jax.evaluate.merge import RESULTS, SCORES
    from vis_jax.report.table import format_table

    print(heading)
    print(format_table({k: v for k, v in report.items() if k != "videos"}))
    output = epath.Path(output)
    print(f"results       {output / RESULTS}\nscores        {output / SCORES}")


def evaluate_together(
    model: "SavedModel",
    dataset: "FirstVideos",
    partial: "PartialFolder",
    *,
    page: str | None = None,
) -> None:
    """Scores a model on a data set, in one of several JAX processes.

    Args:
      model: the same in all processes.
      dataset: data set from `open_split`.
      partial: of an output folder that all processes share.
      page: file for the report, if requested.
    """
    import jax

    from vis_jax.commands.processes import meet, own_share
    from vis_jax.training.devices import device_line

    first, share = jax.process_index() == 0, own_share()
    if first:
        print(device_line(), flush=True)
    run_id = fingerprint(model.config, model.variables)
    evaluate_shard(model, dataset, partial, run_id=run_id, share=share)
    meet("predicted")
    if first:
        partial.fetch()
        _merge(model, dataset, partial, run_id=run_id, count=share.total, page=page)
    meet("scored")  # JAX does not wait long when a process exits


def check_array(output: Path, share: "Share") -> None:
    """Raises ValueError if the folder has a job array with another number of shares."""
    from vis_jax.evaluate.merge import check_same_count
    from vis_jax.evaluate.shares import partial_files

    check_same_count(output, partial_files(output), share.total)


def evaluate_shard(
    model: "SavedModel",
    dataset: "FirstVideos",
    partial: "PartialFolder",
    *,
    run_id: str,
    share: "Share",
) -> None:
    """Predicts one share of a data set into a partial file."""
    import jax

    from vis_jax.commands.processes import SharedProgress
    from vis_jax.evaluate.infer import make_streams
    from vis_jax.evaluate.loop import evaluate_share
    from vis_jax.evaluate.shares import divide, partial_name, summary

    lengths = [video.length for video in dataset.videos]
    shares = divide(lengths, share.total)
    if jax.process_index() == 0:
        print(f"videos        {summary(lengths, shares, unit='frames')}", flush=True)
    several = jax.process_count() > 1
    total = len(lengths) if several else len(shares[share.number - 1])
    with SharedProgress("evaluate", total) as progress:
        try:
            evaluate_share(
                dataset,
                make_streams(model.system, model.variables, model.config.test),
                partial.path,
                top=model.config.test.top,
                run_id=run_id,
                share=share,
                tell=partial.keeping(share, progress.tell),
            )
        finally:
            partial.keep(share)
        progress.wait()
    if not several:
        print(f"partial       {partial.output / partial_name(share)}")


def merge_shards(
    model: "SavedModel",
    dataset: "FirstVideos",
    partial: "PartialFolder",
    *,
    page: str | None,
) -> None:
    """Merges and scores the partial files of a job array.

    Args:
      model: the same as in the job array.
      dataset: data set from `open_split`.
      partial: of the output folder.
      page: file for the report, if requested.

    Raises:
      ValueError: a shard is missing, unfinished, or from another evaluation; names it.
    """
    from vis_jax.evaluate.merge import count_shares

    run_id = fingerprint(model.config, model.variables)
    count = count_shares(partial.path, run_id)
    _merge(model, dataset, partial, run_id=run_id, count=count, page=page)


def _merge(
    model: "SavedModel",
    dataset: "FirstVideos",
    partial: "PartialFolder",
    *,
    run_id: str,
    count: int,
    page: str | None,
) -> None:
    """Merges and scores the partial files, and prints the table."""
    from vis_jax.evaluate.merge import merge

    numbers = merge(dataset, partial.path, run_id=run_id, count=count)
    _publish(numbers, model.config, dataset, partial, page)


def check_seen_by_all(output: Path) -> None:
    """Checks that all processes share a folder; all must call it.

    Raises:
      ValueError: some cannot see the file of process 0; raised in every process.
    """
    import jax

    from vis_jax.commands.processes import all_texts

    index, names = jax.process_index(), []
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as removing:
        if index == 0:
            marker = NamedTemporaryFile(prefix=".shared-", dir=output)  # noqa: SIM115
            names = [Path(removing.enter_context(marker).name).name]
        (name,) = all_texts("marker in --output", names)
        label = f"process {index} on {socket.gethostname()}"
        blind = [] if (output / name).exists() else [label]
        blind = all_texts("blind to --output", blind)
    if blind:
        raise ValueError(
            f"--output: expected a folder that all processes share, got {output}, where"
            f" {', '.join(blind)} cannot see what process 0 writes"
        )


def fingerprint(config: Any, variables: dict) -> str:
    """Returns a digest of everything predictions depend on: settings and parameters.

    The name of a checkpoint is not enough, as training continues under the same name.
    """
    from vis_jax.params import flatten

    digest = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode())
    for path, leaf in sorted(flatten(variables).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

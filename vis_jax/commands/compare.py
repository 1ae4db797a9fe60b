"""Compares trackers on the same detections, and with parts of the truth.

For systems that find objects frame by frame and link them then, such as MaskTrack
R-CNN. The detector sees every video once; its detections stay on disk, so that a run
that is stopped goes on, and a tracker with other settings costs no detector. Tables, as
in the paper of YouTube-VIS, whose numbers stand beside:
  1  every tracker: AP, IDF1, HOTA, identity switches
  2  mask_track with its cues (detection score, IoU, category) on and off: 8 rows
  3  image oracle: true boxes, masks and categories, linked by mask_track;
     identity oracle: what is detected, with the identities of the truth
Writes compare.json, and for every row a folder with results.json, truth.json and
scores.json. Needs videos with annotations; each is read as a whole.

examples:
  python -m vis_jax.main compare --workdir runs/mask_track_rcnn --tables 1
  python -m vis_jax.main compare --workdir runs/mask_track_rcnn --output out \\
      --config.test.split=held_out --config.test.trackers.iou.min_iou=0.5
  python -m vis_jax.main compare --config configs/mask_track_rcnn_r50.py \\
      --checkpoint r50 --output out --tables 2,3 --oracle_iou box --oracle_least 0.7
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from absl import flags

from vis_jax.commands import compare_tables, parts
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.evaluate import fingerprint, open_split
from vis_jax.settings import to_dict

if TYPE_CHECKING:
    from data_pipeline.datasets.head import Head
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.evaluate.oracles import MatchRule
    from vis_jax.systems.detect_then_track import Detector, TestSettings

# What the detections of a video do not depend on.
_OF_TRACKERS = ("tracker", "trackers", "tracks", "top", "videos", "mode")
_TABLES = {
    "trackers": compare_tables.TRACKERS,
    "cues": compare_tables.CUES,
    "oracles": compare_tables.ORACLES,
}
_MAIN = "mask_track"  # the tracker of tables 2 and 3


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    texts = {
        "workdir": "folder of a training run; gives config and checkpoint",
        "checkpoint": "folder of a checkpoint; default: the newest of --workdir",
        "output": "folder for compare.json and the rows;"
        " default: compare/<split> in --workdir",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_list(
        "tables",
        ["1", "2", "3"],
        "1 trackers, 2 cues, 3 oracles; separated by commas",
        flag_values=values,
    )
    flags.DEFINE_string(
        "oracle_iou",
        "mask",
        "identity oracle: IoU of what says that a detection is an object, mask or box",
        flag_values=values,
    )
    flags.DEFINE_float(
        "oracle_least",
        0.5,
        "identity oracle: the least IoU; detections below it are left out",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Compares."""
    from vis_jax.commands.run_settings import with_classes
    from vis_jax.evaluate.oracles import MatchRule, check_rule

    rule = MatchRule(values.oracle_iou, values.oracle_least)
    check_rule(rule)
    tables = _tables(values.tables)
    config = read_config(values)
    _builder(config)  # wrong systems are named before anything is read
    checkpoint = values.checkpoint or values.workdir
    if not checkpoint:
        raise ValueError("--checkpoint: expected a checkpoint or --workdir, got none")
    output = _output(values, config)
    parts.keep_compilations(values.workdir)
    dataset = open_split(config)
    config = with_classes(config, len(dataset.categories))
    variables = parts.load_model(parts.build_system(config), checkpoint)
    report = compare_split(config, variables, dataset, output, tables=tables, rule=rule)
    for name in tables:
        print(compare_tables.format_table(_TABLES[name], report["tables"][name]))
    print(f"numbers       {output / 'compare.json'}")


def compare_split(
    config: "RunSettings",
    variables: dict,
    dataset: "Head",
    output: Path,
    *,
    tables: list[str],
    rule: "MatchRule",
) -> dict:
    """Works out tables on a data set.

    Args:
      config: of the run; `test` has the settings of inference.
      variables: NumPy arrays.
      dataset: as `open_split` finds it.
      output: folder to write to.
      tables: their names.
      rule: of the identity oracle.
    """
    import jax

    from vis_jax.evaluate import compare_rows
    from vis_jax.evaluate.compare import compare
    from vis_jax.evaluate.detections import make_find
    from vis_jax.systems import SYSTEMS

    run_id = _detections_id(config, variables)
    variables = jax.device_put(variables)
    detector = _builder(config)(config)
    trackers = SYSTEMS[config.system].trackers(config)
    classes, test = config.model.num_classes, cast("TestSettings", config.test)
    made_of = compare_rows.Parts(detector, trackers, variables, test, classes, run_id)
    makers = {
        "trackers": lambda: compare_rows.tracker_rows(
            made_of, dict.fromkeys((*compare_tables.TRACKERS.paper, *sorted(trackers)))
        ),
        "cues": lambda: compare_rows.cue_rows(made_of, _MAIN),
        "oracles": lambda: compare_rows.oracle_rows(made_of, _MAIN, rule),
    }
    return compare(
        dataset,
        [row for name in tables for row in makers[name]()],
        output,
        find=make_find(detector, variables, config.test.chunk),
        test=config.test,
        run_id=run_id,
        progress=sys.stderr.isatty(),
    )


def _tables(given: list[str]) -> list[str]:
    """The names of the tables 1, 2, 3."""
    names = dict(zip("123", _TABLES, strict=True))
    if not given or not set(given) <= names.keys():
        raise ValueError(
            f"--tables: expected some of 1,2,3, got {','.join(given) or 'none'}"
        )
    return [name for number, name in names.items() if number in given]


def _builder(config: "RunSettings") -> "Callable[[Any], Detector]":
    """What makes the detector of a system.

    Raises:
      ValueError: the system does not find objects frame by frame.
    """
    from vis_jax.systems import SYSTEMS

    builder = SYSTEMS[config.system].detector
    if builder is None:
        known = sorted(name for name, one in SYSTEMS.items() if one.detector)
        raise ValueError(
            f"system: expected one of {known}, which find objects frame by frame and"
            f" link them then, got {config.system!r}"
        )
    return builder


def _output(values: flags.FlagValues, config: "RunSettings") -> Path:
    """The folder to write to, on a local disk."""
    if not (values.output or values.workdir):
        raise ValueError("--output: expected a folder for the results, got none")
    default = f"{values.workdir}/compare/{config.test.split}"
    output = values.output or default
    if "://" in output:
        raise ValueError(f"--output: expected a folder on a local disk, got {output}")
    return Path(output)


def _detections_id(config: "RunSettings", variables: dict) -> str:
    """A digest of all that detections depend on."""
    values = to_dict(config)
    for name in _OF_TRACKERS:
        del values["test"][name]
    return fingerprint(values, variables)

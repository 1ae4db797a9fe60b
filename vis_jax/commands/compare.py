"""Compares trackers, oracles and test settings on one checkpoint.

--vary evaluates any system with several values of a `test` setting, a row for each.
The tables are for systems that detect objects in each frame and then link them, such as
MaskTrack R-CNN. The detector sees each video once; its detections are cached on disk,
so an interrupted run resumes, and new tracker settings need no new detections. The
tables are those of the YouTube-VIS paper, whose numbers are printed alongside:
  1  every tracker: AP, IDF1, HOTA, identity switches
  2  mask_track with its cues (detection score, IoU, category) on and off: 8 rows
  3  image oracle: ground-truth boxes, masks and categories, linked by mask_track;
     identity oracle: detections with ground-truth identities
Writes compare.json, and a folder for each row with results.json, truth.json and
scores.json. Needs annotated videos; each is read as a whole.

examples:
  python -m vis_jax.main compare --workdir runs/mask_track_rcnn --tables 1
  python -m vis_jax.main compare --workdir runs/mask_track_rcnn --output out \\
      --config.test.split=held_out --config.test.trackers.iou.min_iou=0.5
  python -m vis_jax.main compare --config configs/mask_track_rcnn_r50.py \\
      --checkpoint r50 --output out --tables 2,3 --oracle_iou box --oracle_least 0.7
  python -m vis_jax.main compare --workdir runs/ifr --vary test.mode=video,clip \\
      --vary test.short_side=288,360,480
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from absl import flags

from vis_jax.commands import compare_tables, parts
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.evaluate import fingerprint, open_split, tested_on
from vis_jax.commands.vary import VariedConfig, variants
from vis_jax.paths import on_disk
from vis_jax.settings import to_dict

if TYPE_CHECKING:
    from data_pipeline.datasets.first_videos import FirstVideos
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.compare.oracles import OracleRule
    from vis_jax.compare.table import Row
    from vis_jax.systems import BuildDetector
    from vis_jax.systems.detect_then_track import Detector, TestSettings

# Fields of `test` that do not affect detections.
_OF_TRACKERS = ("tracker", "trackers", "tracks", "top", "videos", "mode", "clip_length")
_TABLES = {
    "trackers": compare_tables.TRACKERS,
    "cues": compare_tables.CUES,
    "oracles": compare_tables.ORACLES,
    "varied": compare_tables.VARIED,
}
_MAIN = "mask_track"  # the tracker of tables 2 and 3


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    texts = {
        **parts.MODEL_FLAGS,
        "output": "folder for compare.json and the rows;"
        " default: compare/<split> in --workdir",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_list(
        "tables",
        None,
        "1 trackers, 2 cues, 3 oracles; separated by commas; default: all, none with"
        " --vary",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "vary",
        [],
        "test.FIELD=VALUE,VALUE,..: a row for each value, with all other settings from"
        " the config; repeat the flag for more settings",
        flag_values=values,
    )
    flags.DEFINE_string(
        "oracle_iou",
        "mask",
        "identity oracle: overlap that matches detections to ground truth: mask or box",
        flag_values=values,
    )
    flags.DEFINE_float(
        "oracle_least",
        0.5,
        "identity oracle: minimum IoU; detections below it are left out",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Runs the comparison."""
    from vis_jax.commands.run_settings import with_classes
    from vis_jax.compare.oracles import OracleRule, check_rule

    rule = OracleRule(values.oracle_iou, values.oracle_least)
    check_rule(rule)
    tables = _tables(values.tables, bool(values.vary))
    config = read_config(values)
    varied = variants(config, values.vary)
    if tables:
        _builder(config)  # rejects unsupported systems before anything is read
    checkpoint = parts.checkpoint_of(values)
    output = _output(values, config)
    parts.keep_compilations(values.workdir)
    dataset = open_split(config)
    config, *others = (
        with_classes(one, len(dataset.categories))
        for one in (config, *(variant.config for variant in varied))
    )
    varied = [
        VariedConfig(old.name, new) for old, new in zip(varied, others, strict=True)
    ]
    variables = parts.load_model(parts.build_system(config), checkpoint)
    comparison = Comparison(config, variables, tables, rule, varied)
    report = compare_split(comparison, dataset, output)
    print(tested_on(config, dataset))
    for name in [*tables, *(["varied"] if varied else [])]:
        print(compare_tables.format_table(_TABLES[name], report["tables"][name]))
    print(f"numbers       {output / 'compare.json'}")


class Comparison(NamedTuple):
    """Inputs of a comparison.

    Attributes:
      config: config of the run; `test` has the inference settings.
      variables: NumPy arrays.
      tables: names of the tables for detectors and trackers.
      rule: matching rule of the identity oracle.
      varied: rows with varied settings.
    """

    config: "RunSettings"
    variables: dict
    tables: list[str]
    rule: "OracleRule"
    varied: list[VariedConfig]


def compare_split(comparison: Comparison, dataset: "FirstVideos", output: Path) -> dict:
    """Computes the tables on a data set.

    Args:
      comparison: inputs of the comparison.
      dataset: data set from `open_split`.
      output: output folder.
    """
    import jax

    from vis_jax.compare.detections import make_find
    from vis_jax.compare.table import compare

    config, run_id = comparison.config, _detections_id(comparison)
    device = jax.device_put(comparison.variables)
    rows, find = [], None
    if comparison.tables:
        detector = _builder(config)(config)
        find = make_find(detector, device, config.test.chunk)
        rows += _table_rows(comparison, detector, device, run_id)
    rows += _varied_rows(comparison, device)
    return compare(
        dataset,
        rows,
        output,
        find=find,
        test=config.test,
        run_id=run_id,
        progress=sys.stderr.isatty(),
    )


def _table_rows(
    comparison: Comparison, detector: "Detector", variables: dict, run_id: str
) -> "list[Row]":
    """Returns the rows of the tables for detectors and trackers."""
    from vis_jax.compare import rows
    from vis_jax.systems import SYSTEMS

    config = comparison.config
    trackers = SYSTEMS[config.system].trackers(config)
    classes, test = config.model.num_classes, cast("TestSettings", config.test)
    made_of = rows.Parts(detector, trackers, variables, test, classes, run_id)
    makers = {
        "trackers": lambda: rows.tracker_rows(
            made_of, dict.fromkeys((*compare_tables.TRACKERS.paper, *sorted(trackers)))
        ),
        "cues": lambda: rows.cue_rows(made_of, _MAIN),
        "oracles": lambda: rows.oracle_rows(made_of, _MAIN, comparison.rule),
    }
    return [row for name in comparison.tables for row in makers[name]()]


def _varied_rows(comparison: Comparison, variables: dict) -> "list[Row]":
    """Returns the rows of `--vary`.

    Raises:
      ValueError: a setting changes the parameters.
    """
    from vis_jax.compare.rows import varied_row

    rows = []
    for name, config in comparison.varied:
        system = parts.build_system(config)
        parts.check_variables(system, comparison.variables, f"--vary {name}")
        run_id = fingerprint(config, comparison.variables)
        rows.append(varied_row(name, run_id, system, variables, config.test))
    return rows


def _tables(given: list[str] | None, varied: bool) -> list[str]:
    """Returns the names of tables 1, 2, 3: by default all, or none with `--vary`."""
    names = dict(zip("123", _TABLES, strict=False))
    if given is None:
        given = [] if varied else [*names]
    elif not given or not set(given) <= names.keys():
        raise ValueError(
            f"--tables: expected some of 1,2,3, got {','.join(given) or 'none'}"
        )
    return [name for number, name in names.items() if number in given]


def _builder(config: "RunSettings") -> "BuildDetector":
    """Returns the function that builds the detector of a system.

    Raises:
      ValueError: the system does not detect objects frame by frame.
    """
    from vis_jax.systems import SYSTEMS

    builder = SYSTEMS[config.system].detector
    if builder is None:
        known = sorted(name for name, one in SYSTEMS.items() if one.detector)
        raise ValueError(
            f"system: expected one of {known}, which detect objects frame by frame and"
            f" then link them, got {config.system!r}"
        )
    return builder


def _output(values: flags.FlagValues, config: "RunSettings") -> Path:
    """Returns the output folder."""
    if not (values.output or values.workdir):
        raise ValueError("--output: expected a folder for the results, got none")
    default = f"{values.workdir}/compare/{config.test.split}"
    return on_disk("--output", values.output or default)


def _detections_id(comparison: Comparison) -> str:
    """Returns a digest of everything that detections depend on."""
    values = to_dict(comparison.config)
    for name in _OF_TRACKERS:
        values["test"].pop(name, None)
    return fingerprint(values, comparison.variables)

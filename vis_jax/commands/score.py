"""Scores a results.json against an annotation file in the YouTube-VIS format.

The numbers equal those of the official evaluator. Needs no model, JAX or TensorFlow.
Two or more files are compared, with 95 % confidence intervals over the videos.

examples:
  python -m vis_jax.main score --truth instances.json --results results.json
  python -m vis_jax.main score --truth instances.json --results results.json \\
      --output scores.json --tracking --per_category
  python -m vis_jax.main score --truth instances.json --results submission.zip
  python -m vis_jax.main score --truth instances.json before.json after.json
  python -m vis_jax.main score --truth valid_short.json --truth_long valid_long.json \\
      --results results.json
  python -m vis_jax.main score --truth instances.json --results results.json \\
      --report report.html --frames JPEGImages
"""

import sys

from absl import flags

_SWITCHES = {
    "identities": (True, "print IDF1, AssA and identity switches beside AP"),
    "tracking": (False, "add HOTA, CLEAR and identity metrics"),
    "per_video": (False, "add a row for every video"),
    "per_category": (False, "add a row for every category"),
    "occlusion": (False, "add AP by occlusion; needs the levels of OVIS in --truth"),
    "errors": (False, "add the AP50 lost to each type of error"),
    "class_agnostic": (
        None,
        "add AP with all categories merged (default: if AP50 is below 0.1)",
    ),
    "box_tracking": (False, "compute tracking metrics on the masks' bounding boxes"),
    "class_aware": (True, "match only equal classes in tracking metrics"),
    "official_quirks": (
        True,
        "score irregular files exactly like the official tool, with warnings;"
        " false: they are errors",
    ),
}


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    texts = {
        "truth": "annotation file with tracks",
        "truth_long": "for YouTube-VIS 2022: annotation file of the long videos;"
        " --truth has the short ones, and the score is the mean of both",
        "output": "JSON file for the metrics, each in [0, 1]; null = undefined",
        "report": "self-contained HTML file: masks beside the ground truth, identity"
        " switches, curves, AP lost to each type of error; the worst videos first",
        "frames": "folder that the file_names of --truth are relative to, for the"
        " images of --report",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_multi_string(
        "results",
        None,
        "results.json, also as a zip or gzip file; several are compared; the name of"
        " the flag may be omitted",
        flag_values=values,
    )
    for name, (default, text) in _SWITCHES.items():
        flags.DEFINE_bool(name, default, text, flag_values=values)
    flags.DEFINE_float(
        "score_threshold",
        0.3,
        "minimum score of predictions for the tracking metrics",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "samples",
        1000,
        "number of bootstrap samples of the videos, for confidence intervals",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "workers",
        None,
        "processes for one large file; does not affect the metrics (default: one per"
        " processor)",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "random seed of the samples", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Runs the scoring."""
    files = values.results
    for name in ("truth", "results"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a JSON file, got none")
    if values.frames and not values.report:
        raise ValueError("--frames: expected --report with it, got none")
    if len(files) > 1:
        table = _several(values, files)
    elif values.truth_long:
        table = _short_long(values, files[0])
    else:
        table = _one(values, files[0])
    print(table, end="")
    if values.output:
        print(f"scores        {values.output}")
    if values.report:
        print(f"report        {values.report}")


def _several(values: flags.FlagValues, files: list[str]) -> str:
    from vis_jax.metrics.compare_results import Sampling, compare, format_comparison

    _refuse(values, ("truth_long", "report", *_SWITCHES), "with one results file")
    report = compare(
        values.truth,
        files,
        values.output,
        sampling=Sampling(values.samples, values.seed),
        score_threshold=values.score_threshold,
        official_quirks=values.official_quirks,
    )
    return format_comparison(report)


def _refuse(values: flags.FlagValues, names: tuple[str, ...], expected: str) -> None:
    """Raises ValueError for flags that do not apply."""
    for name in names:
        if values[name].present and name != "official_quirks":
            raise ValueError(f"--{name}: expected {expected}, got both")


def _one(values: flags.FlagValues, results: str) -> str:
    from vis_jax.report.table import format_table
    from vis_jax.scoring import Options, score

    switches = {name: getattr(values, name) for name in _SWITCHES}
    options = Options(score_threshold=values.score_threshold, **switches)
    _refuse(values, ("samples", "seed"), "with several results files")
    report = score(
        values.truth,
        results,
        values.output,
        options=options,
        report_path=values.report,
        frames=values.frames,
        progress=sys.stderr.isatty(),
        workers=values.workers,
    )
    return format_table(report)


def _short_long(values: flags.FlagValues, results: str) -> str:
    from vis_jax.report.table import format_table
    from vis_jax.scoring import score_short_long

    _refuse(values, ("report", "samples", "seed", *_SWITCHES), "without --truth_long")
    report = score_short_long(
        values.truth,
        values.truth_long,
        results,
        values.output,
        score_threshold=values.score_threshold,
        official_quirks=values.official_quirks,
    )
    parts = [f"{name}\n{format_table(report[name])}" for name in ("short", "long")]
    return "\n".join([format_table({"mAP": report["mAP"]}), *parts])

"""Scores a results.json against an annotation file in the YouTube-VIS format.

Equal to the official evaluator. Needs no model, no JAX and no TensorFlow.

examples:
  python -m vis_jax.main score --truth instances.json --results results.json
  python -m vis_jax.main score --truth instances.json --results results.json \\
      --output scores.json --tracking --per_category
  python -m vis_jax.main score --truth instances.json --results submission.zip
  python -m vis_jax.main score --truth valid_short.json --truth_long valid_long.json \\
      --results results.json
"""

import sys

from absl import flags

_SWITCHES = {
    "identities": (True, "IDF1, AssA and identity switches beside AP"),
    "tracking": (False, "add HOTA, CLEAR and identity scores"),
    "per_video": (False, "add a row for every video"),
    "per_category": (False, "add a row for every category"),
    "occlusion": (False, "add AP by occlusion; the truth needs OVIS's levels"),
    "errors": (False, "add what AP50 is lost to, by kind of error"),
    "class_agnostic": (
        False,
        "add AP with all categories as one; also added where AP50 is below 0.1",
    ),
    "box_tracking": (False, "tracking scores on boxes around the masks"),
    "class_aware": (True, "in tracking scores, classes must agree"),
    "official_quirks": (
        True,
        "score odd files exactly as the official tool does, with warnings;"
        " false: they are errors",
    ),
}


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    texts = {
        "truth": "annotation file with tracks",
        "truth_long": "YouTube-VIS 2022: that of the long videos; --truth has the short"
        " ones, and the score is the mean of both",
        "results": "results.json, also as a zip or gzip file",
        "output": "JSON file for the numbers, each in [0, 1]; null = undefined",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    for name, (default, text) in _SWITCHES.items():
        flags.DEFINE_bool(name, default, text, flag_values=values)
    flags.DEFINE_float(
        "score_threshold",
        0.3,
        "tracking scores leave out predictions below",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Scores."""
    for name in ("truth", "results"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a JSON file, got none")
    table = _short_long(values) if values.truth_long else _one(values)
    print(table, end="")
    if values.output:
        print(f"scores        {values.output}")


def _one(values: flags.FlagValues) -> str:
    from vis_jax.scoring import Options, format_table, score

    switches = {name: getattr(values, name) for name in _SWITCHES}
    options = Options(score_threshold=values.score_threshold, **switches)
    report = score(
        values.truth,
        values.results,
        values.output,
        options=options,
        progress=sys.stderr.isatty(),
    )
    return format_table(report)


def _short_long(values: flags.FlagValues) -> str:
    from vis_jax.scoring import format_table, score_short_long

    more = [name for name in _SWITCHES if values[name].present]
    more = [name for name in more if name != "official_quirks"]
    if more:
        raise ValueError(f"--{more[0]}: expected without --truth_long, got both")
    report = score_short_long(
        values.truth,
        values.truth_long,
        values.results,
        values.output,
        official_quirks=values.official_quirks,
    )
    parts = [f"{name}\n{format_table(report[name])}" for name in ("short", "long")]
    return "\n".join([format_table({"mAP": report["mAP"]}), *parts])

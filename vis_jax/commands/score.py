"""Scores a results.json against an annotation file in the YouTube-VIS format.

Equal to the official evaluator. Needs no model, no JAX and no TensorFlow.

examples:
  python -m vis_jax.main score --truth instances.json --results results.json
  python -m vis_jax.main score --truth instances.json --results results.json \\
      --output scores.json --tracking --per_category
"""

import sys

from absl import flags

_SWITCHES = {
    "tracking": (False, "add HOTA, CLEAR and identity scores"),
    "per_video": (False, "add a row for every video"),
    "per_category": (False, "add a row for every category"),
    "occlusion": (False, "add AP by occlusion; the truth needs OVIS's levels"),
    "errors": (False, "add what AP50 is lost to, by kind of error"),
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
        "results": "results.json",
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


def run(values: flags.FlagValues, words: list[str]) -> None:
    """Scores."""
    from vis_jax.score import format_table, score

    for name in ("truth", "results"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a JSON file, got none")
    switches = {name: getattr(values, name) for name in _SWITCHES}
    report = score(
        values.truth,
        values.results,
        values.output,
        score_threshold=values.score_threshold,
        progress=sys.stderr.isatty(),
        **switches,
    )
    print(format_table(report), end="")
    if values.output:
        print(f"scores        {values.output}")

"""Writes the model card of an export: README.md, in the format of model hubs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

_METRICS = ("AP", "AP50", "AP75", "AR1", "AR10", "HOTA", "IDF1")
_MOST_NAMES = 100  # classes listed on a card


class Facts(NamedTuple):
    """Facts about a model for its card.

    Attributes:
      system: name of the system.
      parts: sizes that the name leaves open, such as ("backbone", "resnet 50").
      parameters: number of parameters.
      classes: names in label order.
      data: description of the training data.
      recipe: training settings by name.
      step: updates up to this checkpoint; None if unknown.
      scores: metrics in [0, 1] by name, for each evaluation.
    """

    system: str
    parts: Sequence[tuple[str, str]]
    parameters: int
    classes: Sequence[str]
    data: str
    recipe: Sequence[tuple[str, str]]
    step: int | None
    scores: Mapping[str, Mapping[str, float]]


def card_of(facts: Facts, *, licence: str, usage: str) -> str:
    """Formats a model card.

    Args:
      facts: facts of the model.
      licence: of the weights; "unknown" if it was not given.
      usage: Markdown that explains how to load the files.
    """
    steps = "unknown" if facts.step is None else str(facts.step)
    model = [
        ("system", facts.system),
        *facts.parts,
        ("parameters", f"{facts.parameters:,}"),
        ("classes", str(len(facts.classes))),
    ]
    training = [("data", facts.data), *facts.recipe, ("updates", steps)]
    sections = [
        _header(licence),
        f"# {facts.system}: video instance segmentation",
        "It finds, segments and tracks every object of its classes in a video. Made by"
        " `vis_jax`, a library for video instance segmentation in JAX.",
        f"## Model\n{_table(model)}",
        f"Classes: {_names(facts.classes)}",
        f"## Training\n{_table(training)}",
        f"## Scores\n{_scores(facts.scores)}",
        f"## How to load it\n{usage}",
        f"## Licence of the weights\n{_licence(licence)}",
    ]
    return "\n\n".join(sections) + "\n"


def _header(licence: str) -> str:
    """Returns the YAML metadata; names are quoted, so that YAML reads them as text."""
    name = licence.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f'---\nlibrary_name: vis_jax\nlicense: "{name}"\n'
        "pipeline_tag: image-segmentation\ntags:\n- video-instance-segmentation\n- jax"
        "\n---"
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    if not scores:
        return "No scores of this checkpoint were recorded during training."
    known = [m for m in _METRICS if any(m in found for found in scores.values())]
    head = [
        "| evaluation | " + " | ".join(known) + " |",
        "| --- " * (len(known) + 1) + "|",
    ]
    rows = [
        f"| {_cell(name)} | "
        + " | ".join(f"{100 * found[m]:.1f}" if m in found else "" for m in known)
        + " |"
        for name, found in scores.items()
    ]
    return "\n".join([*head, *rows])


def _names(classes: Sequence[str]) -> str:
    rest = len(classes) - _MOST_NAMES
    more = f" and {rest} others" if rest > 0 else ""
    return ", ".join(_cell(name) for name in classes[:_MOST_NAMES]) + more + "."


def _licence(licence: str) -> str:
    if licence == "unknown":
        return "Not stated by whoever exported them."
    return f"{_cell(licence)}, as stated by whoever exported them."


def _cell(text: str) -> str:
    """Escapes text for a table cell: one line, without markup."""
    text = " ".join(text.split())
    for mark in "\\`*_<|[":
        text = text.replace(mark, f"\\{mark}")
    return text

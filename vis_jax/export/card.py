"""The model card of an export: README.md, as model hubs show it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

_METRICS = ("AP", "AP50", "AP75", "AR1", "AR10", "HOTA", "IDF1")
_MOST_NAMES = 100  # of classes that are listed


class Facts(NamedTuple):
    """Facts about a model.

    Attributes:
      system: its name.
      parts: the sizes that its name does not say, such as ("backbone", "resnet 50").
      parameters: how many numbers are trained.
      classes: names in the order of the labels.
      data: what it was trained on, in words.
      recipe: settings of the training by name.
      step: updates up to this checkpoint; None if unknown.
      scores: of its evaluations: metrics in [0, 1] by name, by evaluation.
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
      facts: of the model.
      licence: of the weights; "unknown" where nobody has said it.
      usage: Markdown that says how the files are loaded.
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
    """Metadata in YAML; a name in quotes is text, whatever is in it."""
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
    """Text on one line that neither ends a cell of a table nor begins markup."""
    text = " ".join(text.split())
    for mark in "\\`*_<|[":
        text = text.replace(mark, f"\\{mark}")
    return text

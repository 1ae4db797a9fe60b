"""Measures the loss in AP from rounded weights, on moving shapes."""

import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_pipeline.moving_shapes.dataset import MovingShapes
    from vis_jax.commands.saved_model import SavedModel
    from vis_jax.results.frame import Stream

SPLIT = "val"  # split of moving shapes, never used for training


def videos_for(
    model: "SavedModel", count: int, size: tuple[int, int], most_frames: int | None
) -> "MovingShapes | None":
    """Returns the videos for measuring the AP of a model.

    A model trained on moving shapes gets videos like those of its config.

    Args:
      model: model of a run.
      count: number of videos.
      size: height and width in pixels, for a model trained on other data.
      most_frames: maximum frames per video; None = any number.

    Returns:
      None if the classes of the model differ from those of moving shapes.
    """
    from data_pipeline.moving_shapes.dataset import MovingShapes
    from vis_jax.settings import to_dict

    data = model.config.data
    fields: dict = dict(height=size[0], width=size[1])
    if data.name == "moving_shapes":
        fields = to_dict(data.shapes)
    fields |= {"num_videos": count}
    if most_frames is not None:
        fields |= {"length": most_frames}
    shapes = MovingShapes(SPLIT, **fields)
    classes = [(one.category_id, one.name) for one in shapes.categories]
    return shapes if [*model.categories] == classes else None


def change_in_ap(
    streams: "Sequence[Stream]", shapes: "MovingShapes", top: int
) -> tuple[float, float]:
    """Computes the AP of a model and of its export, in [0, 1].

    Args:
      streams: streams of both.
      shapes: the videos.
      top: number of tracks per video that count.
    """
    from vis_jax.evaluate.loop import evaluate

    found = []
    for stream in streams:
        with tempfile.TemporaryDirectory() as folder:
            report = evaluate(
                shapes, stream, folder, top=top, run_id="export", progress=False
            )
        found.append(report["AP"])
    return found[0], found[1]

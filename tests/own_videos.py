"""Writes videos like a phone's, and labels of their frames like a tool's export."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_pipeline.moving_shapes.dataset import MovingShapes
from tests.data_pipeline.convert.foreign_layouts import rectangles
from vis_jax.predict.sinks import VideoSink

FPS = 12


def write_videos(folder: Path, shapes: MovingShapes) -> None:
    """Writes `video0.mp4`, `video1.mp4`, .. at 12 frames per second."""
    folder.mkdir(parents=True)
    for index, video in enumerate(shapes.videos):
        size = dict(height=video.height, width=video.width)
        file = folder / f"video{index}.mp4"
        with VideoSink(file, fps=Fraction(FPS), **size) as sink:
            for frame in shapes.read_frames(index, np.arange(video.length)):
                sink.write(frame)


def label_frames(frames: Path, shapes: MovingShapes, export: Path) -> None:
    """Labels the files of `data extract` with polygons per frame, as exported by
    Roboflow: in one folder, without identities."""
    folder = export / "train"
    folder.mkdir(parents=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for file in sorted(frames.rglob("*.jpg")):
        video, _, number = file.stem.partition("_")
        drawn = shapes.render(int(video.removeprefix("video")), [int(number)])
        name = f"{file.stem}_jpg.rf.{len(images):032x}.jpg"
        (folder / name).write_bytes(file.read_bytes())
        height, width = drawn.images.shape[1:3]
        size = {"height": height, "width": width}
        images.append({"id": len(images), "file_name": name} | size)
        for label, masks in zip(drawn.labels, drawn.masks, strict=True):
            if masks[0].any():
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": len(images) - 1,
                        "category_id": int(label) + 1,
                        "segmentation": rectangles(masks[0]),
                        "iscrowd": 0,
                    }
                )
    categories = [{"id": 0, "name": "toys", "supercategory": "none"}] + [
        {"id": k, "name": category.name, "supercategory": "toys"}
        for k, category in enumerate(shapes.categories, start=1)
    ]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / "_annotations.coco.json").write_text(json.dumps(content))

"""A tiny data set on disk: two videos whose pixel colours show their masks."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

HEIGHT, WIDTH, LENGTH = 48, 64, 6
COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}  # by annotation id


def box_mask(x: int, y: int, width: int = 20, height: int = 16) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[max(0, y) : y + height, max(0, x) : x + width] = True
    return mask


def true_masks() -> dict[int, list[np.ndarray | None]]:
    """Returns masks by annotation id; 1 and 2 in the first video, 3 in the second."""
    return {
        1: [box_mask(2 * t, 4) for t in range(LENGTH)],
        2: [None if t == 2 else box_mask(40, 22 + t) for t in range(LENGTH)],
        3: [box_mask(10, 30 - 2 * t) for t in range(LENGTH)],
    }


def uncompressed(mask: np.ndarray) -> dict:
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}


def compressed(mask: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def content() -> dict:
    """Returns annotations with compressed and uncompressed RLE."""
    videos = [
        {
            "id": number,
            "height": HEIGHT,
            "width": WIDTH,
            "length": LENGTH,
            "file_names": [f"{name}/{5 * t:05d}.jpg" for t in range(LENGTH)],
        }
        for number, name in ((1, "first"), (2, "second"))
    ]
    annotations = []
    for number, masks in true_masks().items():
        encode = compressed if number == 2 else uncompressed
        boxes = [
            None if m is None else coco.toBbox(coco.encode(np.asfortranarray(m, "u1")))
            for m in masks
        ]
        annotations.append(
            {
                "id": number,
                "video_id": 1 + number // 3,
                "category_id": {1: 7, 2: 3, 3: 7}[number],
                "iscrowd": 0,
                "height": HEIGHT,
                "width": WIDTH,
                "length": LENGTH,
                "segmentations": [None if m is None else encode(m) for m in masks],
                "bboxes": [None if b is None else b.tolist() for b in boxes],
                "areas": [None if m is None else int(m.sum()) for m in masks],
            }
        )
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "ant"}]
    return {"videos": videos, "categories": categories, "annotations": annotations}


def write_images(folder: Path) -> None:
    masks = true_masks()
    for name, numbers in (("first", (1, 2)), ("second", (3,))):
        (folder / name).mkdir(parents=True)
        for t in range(LENGTH):
            frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            for number in numbers:
                if masks[number][t] is not None:
                    frame[masks[number][t]] = COLOURS[number]
            file = folder / name / f"{5 * t:05d}.jpg"
            Image.fromarray(frame).save(file, quality=100, subsampling=0)


@pytest.fixture
def annotations() -> dict:
    """Content of the annotation file; tests may modify it."""
    return content()


@pytest.fixture
def write(tmp_path):
    """Writes annotations, and images if a folder is given; returns the root."""

    def write_folder(
        annotations: dict | str,
        *,
        file: str = "instances.json",
        images: str | None = None,
    ) -> Path:
        text = annotations if isinstance(annotations, str) else json.dumps(annotations)
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
        if images is None:
            (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        else:
            write_images(tmp_path / images)
        return tmp_path

    return write_folder


@pytest.fixture
def truth_masks() -> dict[int, list[np.ndarray | None]]:
    """Source masks of the annotations, by annotation id."""
    return true_masks()

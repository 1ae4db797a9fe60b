"""Writes a data set as a folder in the YouTube-VIS format: frames and annotations."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data_pipeline.datasets.dataset import Dataset
from data_pipeline.images import JPEG_QUALITY
from data_pipeline.write.annotations import to_ytvis
from vis_jax.formats.disk import replaced_folder


def write_dataset(
    output: str | Path, dataset: Dataset, *, progress: bool = True
) -> None:
    """Writes `output/JPEGImages/<video>/00000.jpg`, .. and `output/instances.json`.

    The folder is written atomically.

    Args:
      output: a folder that does not exist or is empty.
      dataset: moving shapes, or any other data set.
      progress: show a bar.

    Raises:
      ValueError: `output` is a file, or a folder that is not empty.
    """
    output = Path(output)
    _check_free(output)
    with replaced_folder(output) as temporary:
        _write(temporary, dataset, progress)


def _check_free(output: Path) -> None:
    expected = f"output {output}: expected a new or empty folder"
    if output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{expected}, got one with files in it")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{expected}, got a file")


def _write(folder: Path, dataset: Dataset, progress: bool) -> None:
    bar = tqdm(range(len(dataset.videos)), "videos", disable=not progress)

    def indices():
        for index in bar:
            _write_frames(folder / "JPEGImages", dataset, index)
            yield index

    content = to_ytvis(dataset, indices())
    text = json.dumps(content, allow_nan=False)
    (folder / "instances.json").write_text(text, encoding="utf-8")


def _write_frames(folder: Path, dataset: Dataset, index: int) -> None:
    video = dataset.videos[index]
    images = dataset.read_frames(index, np.arange(video.length))
    for name, image in zip(video.file_names, images, strict=True):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        # 4:4:4, as chroma subsampling would bleed colours over outlines at these sizes.
        Image.fromarray(image).save(file, quality=JPEG_QUALITY, subsampling=0)

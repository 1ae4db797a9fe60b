"""Damaged images as sources of predict: one line for each, and nothing else."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vis_jax.predict.sources import PredictError, open_source

FRAME = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


@pytest.mark.parametrize("number", [1, 4, 40])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_bytes_changed_within_an_image(tmp_path, suffix, number):
    path = tmp_path / f"0.{suffix}"
    Image.fromarray(FRAME).save(path)
    whole = path.read_bytes()
    # Pixels are most of a file: half of the changes go to either end of it.
    ends = [*range(64), *range(len(whole) - 200, len(whole))]
    rng, refused = np.random.default_rng(number), 0
    for step in range(60):
        content = bytearray(whole)
        for place in rng.choice(ends if step % 2 else len(whole), number):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            source = open_source(path)
            (frame,) = source
        except PredictError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert str(error).isprintable()
        else:
            assert frame.shape == (source.height, source.width, 3)
    assert refused


def _damaged_tiff(path, damage):
    """A TIFF of one page, of which `damage` changes the directory."""
    Image.fromarray(FRAME).save(path)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    places = [start + 2 + 12 * k for k in range(count)]
    tags = {struct.unpack_from("<H", content, place)[0]: place for place in places}
    damage(content, tags, places[-1] + 12)
    path.write_bytes(content)
    return path


def _width_is_a_float(content, tags, end):
    struct.pack_into("<H", content, tags[256] + 2, 11)


def _second_page_is_empty(content, tags, end):
    struct.pack_into("<I", content, end, len(content))
    content += bytes(6)


@pytest.mark.parametrize("damage", [_width_is_a_float, _second_page_is_empty])
def test_a_tiff_without_dimensions(tmp_path, damage):
    path = _damaged_tiff(tmp_path / "0.tif", damage)
    expected = r"0\.tif: not a readable image: (Type|Value)Error: .* dimensions"
    with pytest.raises(PredictError, match=expected):
        open_source(path)


def _text_beyond_the_end(content, tags, end):
    struct.pack_into("<HHII", content, tags[284], 284, 2, 60_000, 8)


def test_what_pillow_remarks_about_metadata_is_not_printed(tmp_path):
    path = _damaged_tiff(tmp_path / "0.tif", _text_beyond_the_end)
    with pytest.raises(UserWarning, match="larger than file"):
        Image.open(path)
    code = "import sys; from vis_jax.predict.sources import open_source as read;"
    code += "print(len(list(read(sys.argv[1]))))"
    words = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_images_of_too_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipeline.images.MAX_BYTES", 100)
    Image.fromarray(FRAME).save(tmp_path / "0.png")
    with pytest.raises(PredictError, match=r"0\.png: expected at most 100 bytes, got"):
        open_source(tmp_path)

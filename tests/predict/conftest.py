"""Fixtures shared by the tests of predict."""

import numpy as np
import pytest
from PIL import Image

from tests.predict.squares import H, T, W
from vis_jax.predict.sources import open_source


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(T):
        Image.fromarray(np.full((H, W, 3), 40 + t, np.uint8)).save(folder / f"{t}.png")
    return open_source(folder)

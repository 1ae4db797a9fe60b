import json

import numpy as np
import pytest

from data_pipeline.moving_shapes.dataset import MovingShapes
from tests.small_disk import files_up_to
from vis_jax.evaluate.finished import Finished
from vis_jax.evaluate.loop import evaluate
from vis_jax.evaluate.masks import run_lengths
from vis_jax.evaluate.shares import PARTIAL
from vis_jax.results.frame import FrameResult, LiveTracks

FILES = ["results.json", "scores.json", "truth.json"]


@pytest.fixture
def dataset():
    return MovingShapes("val", num_videos=2, height=48, width=64, length=3)


class Model:
    """Says that one object fills the left half of every frame."""

    def __init__(self):
        self.asked = 0

    def __call__(self, frames, **clock):
        self.asked += 1
        tracks = LiveTracks(np.ones(1, np.int32), np.full((1, 1), 0.5, np.float32))
        for index, frame in enumerate(frames):
            height, width = frame.shape[:2]
            half = np.zeros((1, width, height), np.uint8)
            half[:, : width // 2] = 1
            yield FrameResult(index, tracks, np.zeros(1, int), run_lengths(half))


def run(dataset, folder, model, run_id="one"):
    return evaluate(dataset, model, folder, top=10, run_id=run_id, progress=False)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_names_the_file_and_what_is_finished_stays(dataset, tmp_path):
    whole = run(dataset, tmp_path / "whole", Model())
    sizes = {name: (tmp_path / "whole" / name).stat().st_size for name in FILES}
    assert sizes["results.json"] < min(sizes["truth.json"], sizes["scores.json"])

    model, folder = Model(), tmp_path / "out"
    for size, name in ((200, PARTIAL), (sizes["results.json"] + 100, "truth.json")):
        with files_up_to(size), pytest.raises(OSError) as caught:
            run(dataset, folder, model)
        assert caught.value.filename == str(folder / name)
        assert left(folder)[-1] == PARTIAL
    assert run(dataset, folder, model) == whole
    assert left(folder) == FILES
    assert json.loads((folder / "results.json").read_text()) == json.loads(
        (tmp_path / "whole" / "results.json").read_text()
    )
    assert model.asked == 3  # one of the first two videos did not fit


def test_a_second_evaluation_in_the_folder_is_refused(dataset, tmp_path):
    expected = r"results\.partial\.jsonl: expected no other evaluation"
    with Finished(tmp_path, "one"), pytest.raises(ValueError, match=expected):
        run(dataset, tmp_path, Model())
    run(dataset, tmp_path, Model())


class Stopped(Model):
    """Ends the run in the second video."""

    def __call__(self, frames, **clock):
        if self.asked:
            raise KeyboardInterrupt
        yield from super().__call__(frames, **clock)


@pytest.mark.parametrize(("run_id", "asked"), [("one", 1), ("two", 2)])
def test_videos_of_another_run_are_predicted_again(dataset, tmp_path, run_id, asked):
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path, Stopped())
    model = Model()
    run(dataset, tmp_path, model, run_id)
    assert model.asked == asked

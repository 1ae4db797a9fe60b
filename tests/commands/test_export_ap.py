"""Rounded weights are written with what they lose in AP."""

import dataclasses
import re

import numpy as np
import pytest

from data_pipeline.moving_shapes.dataset import MovingShapes
from tests.command_line import call, error_of
from tests.recipes import recipe
from tests.saved_runs import NAMES, write_run
from vis_jax.commands import export, parts
from vis_jax.commands.export_ap import videos_for
from vis_jax.commands.saved_model import SavedModel
from vis_jax.results.frame import FrameResult, LiveTracks

SHAPES = MovingShapes("val", num_videos=1, height=64, width=96, length=3)
CLASSES = tuple((one.category_id, one.name) for one in SHAPES.categories)
RUN = {"data.shapes": {"height": 64, "width": 96, "length": 3}}
WORDS = ("--height=64", "--width=96", "--check_frames=3", "--dtype=bfloat16")
LOOSE = ("--score_tolerance=1", "--pixel_tolerance=0")


class Oracle:
    """Finds the truth of the first video, or nothing."""

    def __init__(self, blind):
        self.blind = blind

    def __call__(self, frames, **clock):
        truth = SHAPES.truth(0)
        probs = np.eye(len(CLASSES), dtype=np.float32)[truth.labels]
        tracks = LiveTracks(truth.track_ids, probs)
        for index, frame in enumerate(frames):
            seen = [] if self.blind else np.flatnonzero(truth.present[:, index])
            masks = [truth.segmentations[row][index] for row in seen]
            rows = np.array(seen, int)
            yield FrameResult(index, tracks, rows, masks, frame.shape[:2])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export_ap") / "run"
    write_run(folder, "ifr_shapes", RUN | {"model.mask_decoder.layers": 1})
    (folder / parts.CATEGORIES_FILE).unlink()
    parts.write_categories(folder, SHAPES.categories)
    return folder


def test_the_change_of_ap_is_that_of_the_two_streams(run, tmp_path, monkeypatch):
    pair = (Oracle(blind=False), Oracle(blind=True))
    monkeypatch.setattr(export, "streams_of", lambda *_: pair)
    words = ("--workdir", run, *WORDS, *LOOSE)
    outcome = call("export", *words, "--ap_videos=1", "--output", tmp_path / "one")
    assert outcome.code == 0, outcome.err
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in _report(outcome.out))
    assert lines["AP"] == "100.00, 1 video of moving shapes (val)"
    assert lines["AP in bfloat16"] == "0.00"
    assert lines["change in AP"] == "-100.00"
    outcome = call("export", *words, "--ap_videos=0", "--output", tmp_path / "none")
    assert outcome.code == 0 and "AP" not in outcome.out


def _report(text):
    return [line for line in text.splitlines() if re.search(r"  +", line)]


def test_videos_are_those_that_the_model_knows():
    config = recipe("ifr_shapes", "debug", RUN)
    model = SavedModel(config, CLASSES, None, {})
    found = videos_for(model, 3, (32, 48), None)
    assert [(v.height, v.width, v.length) for v in found.videos] == [(64, 96, 3)] * 3
    short = videos_for(model, 1, (32, 48), 2)
    assert short.videos[0].length == 2
    data = dataclasses.replace(config.data, name="folder", root="elsewhere")
    other = model._replace(config=dataclasses.replace(config, data=data))
    (video,) = videos_for(other, 1, (32, 48), None).videos
    assert (video.height, video.width) == (32, 48)
    names = tuple(enumerate(NAMES, 1))
    assert videos_for(other._replace(categories=names), 1, (32, 48), None) is None


def test_exact_weights_have_no_change(run, tmp_path):
    words = ("--workdir", run, "--output", tmp_path / "out", "--ap_videos=2")
    message = "--ap_videos: expected --dtype bfloat16 or int8 beside it, got float32"
    assert message in error_of("export", *words)

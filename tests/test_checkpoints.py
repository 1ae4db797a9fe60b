"""Weights that come with the package: found by name, packed, and any good."""

import configparser
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import vis_jax
from data_pipeline.moving_shapes.dataset import MovingShapes
from tests.command_line import error_of
from vis_jax import checkpoints
from vis_jax.checkpoints import find_weights, shipped
from vis_jax.commands import parts
from vis_jax.params import flatten, unflatten
from vis_jax.training.checkpoint import check_there, load_variables
from vis_jax.training.initial import load_initial

ROOT = Path(__file__).parents[1]
MOST_BYTES = 4e6
SURE = 0.5  # score of a track that counts


def test_a_name_is_what_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert find_weights("shapes") == str(shipped()["shapes"])
    for path in ("./shapes", "runs/shapes", "/shapes", "mine", "..", "gs://a/shapes"):
        assert find_weights(path) == path
    assert find_weights(Path("shapes")) == "./shapes"
    with pytest.raises(ValueError, match=r"^shaeps: expected .*\(shapes\), got neith"):
        vis_jax.load("shaeps")


def test_neither_a_folder_nor_the_weights_hide_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()
    both = f"got two of this name; write ./shapes .* and {shipped()['shapes']} for"
    with pytest.raises(ValueError, match=both):
        vis_jax.load("shapes")
    for path in ("./shapes", Path("shapes")):
        with pytest.raises(
            ValueError, match="^shapes: expected config.json in it or in"
        ):
            vis_jax.load(path)
    weights = shipped()["shapes"]
    assert find_weights(weights) == str(weights)


def test_more_weights_are_one_more_folder(tmp_path, monkeypatch):
    for name in ("birds", "cats"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(checkpoints, "_FOLDER", tmp_path)
    assert find_weights("cats") == str(tmp_path / "cats")
    with pytest.raises(ValueError, match=r"\(birds, cats\), got neither"):
        find_weights("dogs")


def test_commands_name_what_there_is():
    words = ("predict", "--source=x", "--output=y")
    expected = "--checkpoint: expected a checkpoint, weights by name (shapes) or --work"
    assert error_of(*words).startswith(expected)
    for command in (words, ("evaluate", "--output=y"), ("export", "--output=y")):
        got = error_of(*command, "--checkpoint=shaeps")
        assert got.startswith("shaeps: expected the folder of a model, or the name of")
    config = "--config=configs/mask_track_rcnn_shapes.py:debug"
    got = error_of(config, "--config.init_from=shaeps", "--workdir=y")
    assert got.startswith("shaeps: expected the folder of a model, or the name of")


@pytest.mark.parametrize("name", shipped())
def test_they_are_packed_small_and_say_how_they_were_made(name):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["vis_jax.checkpoints"].split(", ")
    folder = shipped()[name]
    packed = {path for one in patterns for path in folder.parent.glob(one)}
    files = set(folder.iterdir())
    assert files <= packed
    assert {path.name for path in files} >= {"config.json", "categories.json"}
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    card = (folder / "README.md").read_text()
    for fact in ("python -m vis_jax.main --config", "seed", "commit", "seconds", "AP"):
        assert fact in card
    assert 'license: "apache-2.0"' in card


@pytest.fixture(scope="module")
def model():
    return vis_jax.load("shapes")


def test_a_training_starts_from_them(model):
    check_there("shapes")
    expected = flatten(load_variables("shapes"))
    shapes = flatten(parts.shapes_of(parts.build_system(model.config)))
    zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    loaded = flatten(load_initial("shapes", unflatten(zeros), fresh=()))
    assert loaded.keys() == expected.keys()
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, expected[name])


def test_every_object_has_one_track_of_its_class(model):
    shapes = MovingShapes("test", num_videos=1, length=12)
    drawn = shapes.render(0, np.arange(12))
    video = model.track(drawn.images)
    sure = [n for n, track in enumerate(video.tracks) if track.score >= SURE]
    masks = np.stack([video.masks(t) for t in range(12)], 1)[sure]
    both = np.einsum("mthw,nthw->mn", drawn.masks.astype(int), masks.astype(int))
    either = drawn.masks.sum((1, 2, 3))[:, None] + masks.sum((1, 2, 3)) - both
    assert len(drawn.labels) >= 3
    same = both / either > 0.5
    assert same.sum(0).tolist() == same.sum(1).tolist() == [1] * len(drawn.labels)
    names = [model.names[label] for label in drawn.labels]
    assert [video.tracks[sure[n]].label for n in same.argmax(1)] == names


@pytest.mark.parametrize("names", [[], ["a"] * 8, ["a\nb"]])
def test_classes_that_are_given_have_a_name_each(names):
    with pytest.raises(ValueError, match="^categories: expected names on one line, ea"):
        vis_jax.load("shapes", categories=names)


@pytest.mark.parametrize("name", ["config.json", "categories.json", "export.json"])
def test_a_pipe_in_the_folder_of_a_model_is_refused(tmp_path, name):
    for path in shipped()["shapes"].iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: expected a regular file, got some"):
        vis_jax.load(tmp_path)

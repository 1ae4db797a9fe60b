"""Features of a frozen encoder: stored by a command, read in training."""

import functools
import os
import shutil

import jax
import numpy as np
import pytest

from data_pipeline.clip_sampling import plan_batches
from data_pipeline.datasets.by_name import make_training_set
from tests.command_line import call, error_of
from tests.compiled import compiled
from tests.recipes import changed, recipe
from vis_jax.commands.train import batches, stored_features
from vis_jax.commands.train_checks import training_shapes
from vis_jax.structures import Batch
from vis_jax.systems.videomt import build
from vis_jax.training.features import StoredFeatures, views_of

# Content of 64 x 96 does not fill the canvas, nor do four frames fill two clips.
_LEAST = {
    "model.backbone.dim": 16, "model.backbone.heads": 2, "model.queries": 6,
    "loss.points": 16, "loss.chunk": 0, "data.canvas": (64, 128),
    "data.frames": 3,
}  # fmt: skip
_COMMAND = (
    *("data", "cache_features", "--config=configs/lvmt.py:debug"),
    *(f"--config.{name}={value}" for name, value in _LEAST.items()),
)
_TOKENS = 1 + 4 + 4 * 6  # class, registers, patches of the content


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder of features, and what the command printed."""
    folder = tmp_path_factory.mktemp("features")
    outcome = call(*_COMMAND, f"--output={folder}")
    assert outcome.code == 0, outcome
    return folder, outcome.out


@functools.cache
def _run():
    """Settings without features, data set, system, and variables at the start."""
    config = recipe("lvmt", "debug", _LEAST)
    dataset, system = make_training_set(config.data), build(config)
    batch = Batch(**next(batches(dataset, config, 0)))
    init = compiled(lambda batch: dict(system.init(jax.random.key(0), batch)))
    return config, dataset, system, init(batch)


def _features(folder, changes=None):
    config, dataset, system, _ = _run()
    config = changed(config, {"data.features": str(folder)} | (changes or {}))
    return stored_features(config, build(config), dataset)


def test_two_videos_of_four_frames_have_two_views_each(stored):
    folder, out = stored
    files = sorted(folder.glob("*/*"))
    assert [path.name for path in files] == ["64x96.npy", "64x96_mirrored.npy"] * 2
    for path in files:
        found = np.load(path)
        assert (found.shape, found.dtype) == ((4, 2, _TOKENS, 16), np.float16)
    size = 4 * 4 * 2 * _TOKENS * 16 * 2 / 1e3
    assert f"4 views of 2 videos to write, {size:.3g} kB" in out
    assert "4 files written" in out


def test_stored_features_train_as_the_images_of_the_same_view_do(stored):
    config, dataset, system, variables = _run()
    features = _features(stored[0])
    features.check_encoder(variables["params"], config.optimizer)
    share = dict(seed=config.seed, start_step=0, host_index=0, host_count=1)
    plans = plan_batches(dataset, config.data, **share)
    encode, flips = compiled(system.encoder.encode), set()
    inside = features.inside((64, 96))
    for arrays, clips in zip(batches(dataset, config, 0, features), plans, strict=True):
        batch = Batch(**arrays)
        flips |= {bool(clip.flip[0]) for clip in clips}
        for clip, given in enumerate(batch.features):
            sizes = np.repeat(batch.sizes[clip : clip + 1], 3, axis=0)
            found = encode(variables, batch.images[clip], sizes)
            np.testing.assert_allclose(
                given[:, :, inside], found[:, :, inside], rtol=2e-3, atol=2e-3
            )
            assert not given[:, :, ~inside].any()
        if len(flips) == 2:
            break
    run = changed(config, {"data.features": str(stored[0])})
    like = training_shapes(run, system, clips=2).features
    assert (like.shape, like.dtype) == (batch.features.shape, batch.features.dtype)
    loss = compiled(lambda *x: system.loss(*x, jax.random.key(1))[0])
    by_features = loss(variables, batch)
    by_images = loss(variables, batch._replace(features=None))
    assert by_features == pytest.approx(by_images, rel=2e-3)
    other = loss(variables, batch._replace(features=-batch.features))
    assert abs(other - by_images) > 1e-2 * by_images


def test_what_is_missing_is_refused_and_written_by_the_next_command(stored, tmp_path):
    folder = tmp_path / "features"
    shutil.copytree(stored[0], folder)
    lost, kept = folder / "000001/64x96_mirrored.npy", folder / "000001/64x96.npy"
    before, when = lost.read_bytes(), os.stat(kept).st_mtime_ns
    lost.rename(lost.with_suffix(".part"))  # as of an interrupted command
    with pytest.raises(ValueError, match=r"64x96_mirrored.npy: expected a file, .* 1 "):
        _features(folder)
    outcome = call(*_COMMAND, f"--output={folder}")
    assert outcome.code == 0, outcome
    assert "1 views of 1 videos to write" in outcome.out
    assert lost.read_bytes() == before
    assert os.stat(kept).st_mtime_ns == when
    assert not lost.with_suffix(".part").exists()
    other = error_of(*_COMMAND, f"--output={folder}", "--config.seed=1")
    assert "expected features with weights" in other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.short_side": (64, 32)}, r"data.short_side \[32, 64\], got \[64\]"),
        ({"data.canvas": (64, 96)}, r"data.canvas \[64, 96\], got \[64, 128\]"),
        ({"data.flip": 0.0}, 'data.flip 0.0, got "some"'),
        ({"model.sees": "canvas"}, 'model.sees "canvas", got "content"'),
        ({"model.backbone.patch": 32}, "model.backbone.patch 32, got 16"),
        ({"compute_dtype": "bfloat16"}, "compute_dtype"),
        ({"data.shapes.seed": 1}, "data.shapes"),
        ({"data.features": "none"}, r"expected none.features.json, got no such file"),
        ({"model.decoder": dict(blocks=1)}, "no frozen encoder"),
    ],
)
def test_features_of_other_settings_are_refused_by_name(stored, changes, message):
    with pytest.raises(ValueError, match=f"^data.features: .*{message}"):
        _features(stored[0], changes)


def test_features_of_other_weights_and_of_an_encoder_that_trains_are_refused(stored):
    config, _, _, variables = _run()
    features, params = _features(stored[0]), variables["params"]
    for rate in (1.0, 0.01):
        trains = changed(config, {"optimizer.rates": ((".*", rate),)}).optimizer
        message = rf"optimizer.rates 0 for backbone/.*, got {rate:g} "
        with pytest.raises(ValueError, match=message):
            features.check_encoder(params, trains)
    token = params["backbone"]["cls_token"]
    other = params | {"backbone": params["backbone"] | {"cls_token": token + 1}}
    with pytest.raises(ValueError, match="expected features with weights"):
        features.check_encoder(other, config.optimizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.crop": (30, 60)}, "data.crop_share: expected 0.0 with features"),
        ({"data.colour": 0.1}, "data.colour: expected 0.0 with features"),
        ({"data.zoom": (0.5, 2.0)}, "data.zoom: expected None with features"),
        ({"data.stills.share": 0.5}, "data.stills.share: expected 0.0 with features"),
        ({"data.loader": "numpy"}, "data.loader: expected 'tf' with features"),
    ],
)
def test_views_that_are_not_stored_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe("lvmt", "debug", _LEAST | {"data.features": "features"} | changes)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_there_are_no_views_that_training_never_draws(flip):
    config, dataset, _, _ = _run()
    data = changed(config, {"data.flip": flip}).data
    found = views_of(dataset.videos[0], data)
    assert [(view.size, view.flip) for view in found] == [((64, 96), flip == 1)]


def test_features_beyond_float16_are_refused_and_leave_no_file(tmp_path):
    config, dataset, system, _ = _run()
    videos = dataset.videos
    features = StoredFeatures(tmp_path, system.encoder, config.data, videos)
    view = views_of(videos[0], config.data)[0]
    message = "expected features within float16, up to 65504"
    with (
        pytest.raises(ValueError, match=message),
        features.writing(0, view, (2, 3)) as array,
    ):
        array[:] = [[1, 2, 3], [4, 5, np.inf]]  # as 70,000 is in float16
    assert not [path for path in tmp_path.glob("**/*") if path.is_file()]


def test_fewer_bytes_than_there_is_space_for(monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    found = error_of(*_COMMAND, f"--output={tmp_path / 'features'}")
    assert "--output: expected 29.7 kB of free space, got 1 kB" in found
    assert not (tmp_path / "features").exists()

"""The library from Python gives what its commands give."""

import dataclasses
import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vis_jax
from tests.command_line import call
from tests.commands.folder import config_words, write_folder
from tests.recipes import recipe
from tests.report.scene import content_in
from tests.saved_runs import NAMES, write_run
from vis_jax import api, tracking
from vis_jax.params import flatten
from vis_jax.predict.sinks import VideoSink
from vis_jax.results.collect import collect
from vis_jax.training.checkpoint import load_variables

ROOT = Path(__file__).parents[1]
CLIPS = {"mode": "clip", "clip_length": 2}
FLAGS = ("--config.test.mode=clip", "--config.test.clip_length=2")
T, SIZE = 5, (50, 70)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "run"
    return write_run(folder, "mask_track_rcnn_shapes")


@pytest.fixture(scope="module")
def model(run):
    return vis_jax.load(run, **CLIPS)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (T, *SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def clip(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoSink(path, fps=Fraction(5), height=SIZE[0], width=SIZE[1]) as video:
        for frame in frames:
            video.write(frame)
    return path


def files_of(video, folder):
    video.save(folder)
    return [(folder / name).read_bytes() for name in ("results.json", "video.json")]


def test_results_are_those_of_the_command_byte_for_byte(run, model, clip, tmp_path):
    out = tmp_path / "command"
    words = ("--workdir", run, "--source", clip, "--output", out, "--novideo", *FLAGS)
    outcome = call("predict", *words, "--save=json,html")
    assert outcome.code == 0, outcome
    (shown,) = content_in(out / "report.html")["videos"]
    assert len(shown["pictures"]) == shown["frames"] == T
    video = model.track(clip)
    expected = [(out / name).read_bytes() for name in ("results.json", "video.json")]
    assert files_of(video, tmp_path / "api") == expected
    assert video.num_frames == T
    assert len(video.tracks) > 0
    assert video.masks(T - 1).shape == (len(video.tracks), *SIZE)
    assert {track.label for track in video.tracks} <= set(NAMES)


def test_an_evaluation_of_the_video_finds_the_same(run, model, tmp_path):
    folder = write_folder(tmp_path / "set", num_videos=1)
    page = tmp_path / "page.html"
    words = ("--workdir", run, "--output", tmp_path / "out", "--report", page, *FLAGS)
    outcome = call("evaluate", *words, *config_words(folder))
    assert outcome.code == 0, outcome
    found = json.loads((tmp_path / "out/results.json").read_text())
    (frames,) = (folder / "JPEGImages").iterdir()
    video = model.track(frames)
    assert len(video.tracks) > 0
    for name in ("score", "segmentations"):
        ours = [entry[name] for entry in video.to_ytvis()]
        assert [entry[name] for entry in found] == ours
    labels = [entry["category_id"] - 1 for entry in found]
    assert labels == video.labels.tolist()
    content = content_in(page)
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    for name in ("AP", "HOTA", "IDSW"):
        expected = scores[name]
        assert dict(content["summary"])[name] == pytest.approx(expected, abs=1e-5)
    (shown,) = content["videos"]
    assert len(shown["pictures"]) == shown["frames"] == video.num_frames
    assert all(one.startswith("data:image/") for one in shown["pictures"])


def test_frames_come_as_they_are_final_and_make_the_tracks(model, clip):
    video, seen = model.track(clip), list(model.stream(clip))
    assert [frame.frame for frame in seen] == list(range(T))
    assert any(len(frame.ids) for frame in seen)
    for frame in seen:
        n = len(frame.ids)
        assert frame.masks.shape == (n, *SIZE) and frame.boxes.shape == (n, 4)
        assert len(frame.labels) == len(frame.scores) == n
    found = collect(seen, model.config.test.top, T, SIZE)
    assert found.track_ids.tolist() == [track.id for track in video.tracks]
    for t in range(T):
        np.testing.assert_array_equal(found.masks(t), video.masks(t))


def test_a_stream_reads_no_further_than_it_has_to(model, frames):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield frames[len(taken) % T]

    stream = model.stream(endless())
    assert next(stream).frame == 0
    stream.close()
    assert len(taken) < 30


def test_arrays_are_a_source_like_files(model, frames, tmp_path):
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{t}.png")
    paths = sorted(tmp_path.glob("*.png"))
    expected = model.track(tmp_path, fps=25).to_ytvis()
    for source in (frames, list(frames), iter(frames), paths, [*map(str, paths)]):
        video = model.track(source, fps=25)
        assert video.to_ytvis() == expected
        assert (video.fps, video.num_frames) == (25, T)
    assert model.track(tmp_path).fps == 6


@pytest.mark.parametrize(
    ("source", "fps", "expected"),
    [
        ("absent.mp4", None, "absent.mp4: no such file or folder"),
        (np.zeros((2, 9, 9, 3), np.float32), None, "expected uint8 [height, width, 3]"),
        (np.zeros((0, 9, 9, 3), np.uint8), None, "expected at least one frame"),
        ([], None, "source: expected at least one image, got an empty list"),
        (np.zeros((2, 9, 9, 3), np.uint8), 0, "fps: expected a number of frames"),
    ],
)
def test_what_is_no_source_is_named_at_once(model, source, fps, expected):
    for ask in (model.track, model.stream):
        with pytest.raises(ValueError) as caught:
            ask(source, fps=fps)
        assert expected in str(caught.value)


def test_a_source_without_end_needs_a_system_that_works_in_clips(run, frames):
    with pytest.raises(ValueError, match="expected a system that reads a live source"):
        vis_jax.load(run).stream(iter(frames))


def test_what_is_odd_about_a_source_is_a_warning(model, clip, monkeypatch):
    opened = tracking.open_source

    def odd(path):
        source = opened(path)
        source.warnings.append(f"{path}: 1 frame is damaged")
        return dataclasses.replace(source, warnings=["1 frame is damaged"])

    monkeypatch.setattr(tracking, "open_source", odd)
    with pytest.warns(UserWarning, match="1 frame is damaged"):
        model.track(clip)
    stream = model.stream(clip)
    next(stream)
    with pytest.warns(UserWarning, match="1 frame is damaged"):
        stream.close()  # as one ends a camera


def test_settings_are_read_as_flags_are(run):
    for settings, fields in (
        ({"test.tracker": "iou"}, {}),
        ({"test": {"tracker": "iou"}}, {}),
        (None, {"tracker": "iou"}),
    ):
        config = vis_jax.load(run, settings, **fields).config
        assert config.test.tracker == "iou"
        assert config.test.short_side == 64  # as the run has it
    for settings, expected in (
        (
            {"test.trakcer": "iou"},
            "test.trakcer: no such field; did you mean 'tracker'",
        ),
        ({"test.top": 0}, "test.top: expected int, at least 1, got 0"),
        ({"test.tracker": "kcf"}, "test.tracker: expected one of"),
        ({"test.top.all": 1}, "test.top: expected fields and values, got"),
        ({"model.num_classes": 3}, "model.num_classes: expected 8, the categories"),
    ):
        with pytest.raises(ValueError) as caught:
            vis_jax.load(run, settings)
        assert str(caught.value).startswith(expected)


def test_a_checkpoint_takes_what_it_lacks_from_the_run_around_it(run, model):
    expected = flatten(load_variables(run))
    for path in (run / "checkpoints", run / "checkpoints" / "4"):
        found = vis_jax.load(path)
        assert found.names == model.names == list(NAMES)
        assert flatten(found._saved.variables).keys() == expected.keys()


def test_a_bare_checkpoint_needs_a_config_and_classes(run, tmp_path):
    bare = shutil.copytree(run / "checkpoints" / "4", tmp_path / "a/b/c/bare")
    annotations = tmp_path / "instances.json"
    rows = [{"id": 2 * i, "name": name} for i, name in enumerate(NAMES, 1)]
    content = {"videos": [], "categories": rows, "annotations": []}
    annotations.write_text(json.dumps(content))
    config = "configs/mask_track_rcnn_shapes.py:debug"
    with pytest.raises(ValueError, match="bare: expected config.json .* give config="):
        vis_jax.load(bare)
    with pytest.raises(ValueError, match="expected categories.json .* categories="):
        vis_jax.load(bare, config=config)
    with pytest.raises(ValueError, match="model.num_classes: expected 2, the categ"):
        vis_jax.load(bare, config=config, categories=["cat", "dog"])
    fields = api.read_settings_of(config, {})
    assert fields == recipe("mask_track_rcnn_shapes")
    for given in (config, run / "config.json", json.loads(json.dumps(saved(run)))):
        for classes in (annotations, NAMES):
            assert vis_jax.load(bare, config=given, categories=classes).names == [
                *NAMES
            ]


def saved(run):
    return json.loads((run / "config.json").read_text())


def test_a_folder_of_a_hub_is_the_same_model(model, frames, tmp_path):
    hub = tmp_path / "hub"
    model.save_hub(hub)
    names = {"config.json", "categories.json", "model.safetensors"}
    assert {path.name for path in hub.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]
    again = vis_jax.load(hub)
    assert again.config == model.config
    variables = flatten(again._saved.variables)
    for name, value in flatten(model._saved.variables).items():
        np.testing.assert_array_equal(variables[name], value)
        assert variables[name].dtype == value.dtype
    assert files_of(again.track(frames), tmp_path / "a") == files_of(
        model.track(frames), tmp_path / "b"
    )
    with pytest.raises(ValueError, match="hub: expected a new folder"):
        model.save_hub(hub)


def test_a_hub_does_not_say_where_data_lay(run, tmp_path):
    settings = {"data.name": "folder", "data.root": "/home/me", "init_from": "old"}
    vis_jax.load(run, settings).save_hub(tmp_path / "hub")
    config = saved(tmp_path / "hub")
    assert config["data"]["name"] == "folder"
    assert config["data"]["root"] == config["init_from"] == ""


def test_a_hub_that_is_damaged_or_of_others_is_named(model, tmp_path):
    hub = tmp_path / "hub"
    model.save_hub(hub)
    weights = hub / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable file"):
        vis_jax.load(hub)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        vis_jax.load(hub)
    (hub / "config.json").write_text('{"model_type": "mask2former"}')
    with pytest.raises(ValueError, match="got that of a Hugging Face model"):
        vis_jax.load(hub)


def test_the_folder_is_named_if_there_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    for name, got in (("absent", "no such folder"), ("file", "a file")):
        with pytest.raises(ValueError, match=f"{name}: expected the folder .* {got}"):
            vis_jax.load(tmp_path / name)


def test_training_is_that_of_the_command(run, tmp_path, monkeypatch):
    calls = []

    def note(config, workdir, **options):
        calls.append((config, workdir, options.get("accept_changes", False)))

    monkeypatch.setattr(api, "train_config", note)
    monkeypatch.setattr("vis_jax.commands.train.train_config", note)
    config = "configs/mask_track_rcnn_shapes.py:debug"
    out = tmp_path / "run"
    vis_jax.train(config, out, {"num_steps": 7}, accept_changes=True)
    words = ("--config.num_steps=7", "--accept_changes")
    assert call("--config", config, "--workdir", out, *words).code == 0
    vis_jax.train(None, run)
    assert call("--workdir", run).code == 0
    assert calls[0] == calls[1] and calls[2] == calls[3]
    assert calls[0][0].num_steps == 7
    with pytest.raises(ValueError, match="num_steps: expected int, at least 1, got 0"):
        vis_jax.train(config, out, {"num_steps": 0})
    with pytest.raises(ValueError, match=r"config\.json: expected a JSON file, got no"):
        vis_jax.train(None, tmp_path / "absent")


def test_the_names_are_those_listed():
    assert dir(vis_jax) == sorted(vis_jax.__all__)
    for name in vis_jax.__all__:
        assert getattr(vis_jax, name) is not None
    with pytest.raises(AttributeError, match="'vis_jax' has no attribute 'trakc'"):
        vis_jax.trakc  # noqa: B018


def test_modules_do_not_hide_what_has_their_name():
    code = """
import vis_jax, vis_jax.training.loop, vis_jax.scoring
assert callable(vis_jax.train) and callable(vis_jax.score) and callable(vis_jax.load)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

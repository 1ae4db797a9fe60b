"""A step in ONNX is the model of the run, by ONNX Runtime."""

import importlib.util

import pytest

import vis_jax
from tests.command_line import call, error_of
from tests.saved_runs import write_run
from tests.stand_in_bucket import Bucket

SMALL = ("--height=64", "--width=96", "--check_frames=3", "--size=64x96")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "run"
    clips = {"test.mode": "clip", "test.clip_length": 1}
    return write_run(folder, "mask_track_rcnn_shapes", clips)


@pytest.mark.slow
def test_a_step_with_its_state_is_the_model(run, tmp_path):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    output = tmp_path / "out"
    words = ("--workdir", run, "--output", output, "--format=onnx", *SMALL)
    outcome = call("export", *words)
    assert outcome.code == 0, outcome.err
    lines = dict(line.rsplit(maxsplit=1) for line in outcome.out.splitlines())
    assert float(lines["score difference"]) < 1e-3
    assert float(lines["equal mask pixels"]) > 0.999
    session = onnxruntime.InferenceSession(output / "step_1x64x96.onnx")
    inputs = {one.name: one for one in session.get_inputs()}
    outputs = {one.name: one for one in session.get_outputs()}
    assert inputs["images"].shape == [1, 64, 96, 3]
    states = {name for name in inputs if name.startswith("state/")}
    assert {f"next_{name}" for name in states} <= outputs.keys()
    assert outputs["class_probs"].shape[1] == 8


def test_packages_that_are_missing_are_named(run, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = ("--workdir", run, "--output", tmp_path / "out", "--format=onnx", *SMALL)
    expected = "expected the extra onnx, as pip install"
    assert expected in error_of(call("export", *words))
    assert not (tmp_path / "out").exists()


def test_published_names_are_not_loaded(tmp_path):
    record = '{"format": "safetensors", "version": 1, "layout": "swin"}'
    (tmp_path / "export.json").write_text(record)
    with pytest.raises(ValueError, match="got those of swin; `convert --kind swin`"):
        vis_jax.load(tmp_path)


def test_an_export_in_a_bucket_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(Bucket, "folder", tmp_path, raising=False)
    (tmp_path / "export.json").write_text('{"format": "stablehlo", "version": 1}')
    expected = "export: expected a path on a disk, got bucket://"
    with pytest.raises(ValueError, match=expected):
        vis_jax.load("bucket://")


def test_a_step_in_onnx_is_not_loaded(tmp_path):
    (tmp_path / "export.json").write_text('{"format": "onnx", "version": 1}')
    with pytest.raises(ValueError, match="got a step in ONNX, which ONNX Runtime runs"):
        vis_jax.load(tmp_path)

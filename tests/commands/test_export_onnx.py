"""A step in ONNX is the model of the run, by ONNX Runtime."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import jax
import pytest

import vis_jax
from data_pipeline.datasets.dataset import Category
from tests.command_line import call, error_of
from tests.recipes import recipe
from tests.saved_runs import NAMES, write_run
from tests.stand_in_bucket import Bucket
from tests.training.toy_system import toy_system
from vis_jax.commands import parts, saved_model
from vis_jax.commands.saved_model import SavedModel
from vis_jax.structures import Window
from vis_jax.training.run_config import write_config

SMALL = ("--height=64", "--width=96", "--check_frames=3", "--size=64x96")
CLIPS = {"test.mode": "clip", "test.clip_length": 1}


@pytest.mark.parametrize("name", ["mask_track_rcnn_shapes", "videomt_shapes"])
def test_a_step_with_its_state_is_the_model(name, tmp_path):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    run = write_run(tmp_path / "run", name, CLIPS)
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


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The words that export a system which needs no checkpoint."""
    run, system = tmp_path / "run", toy_system()._replace(window=Window(1, 1))
    run.mkdir()
    config = recipe("mask_track_rcnn_shapes", "debug", CLIPS)
    write_config(config, str(run))
    classes = [Category(i, name) for i, name in enumerate(NAMES, 1)]
    parts.write_categories(run, classes)
    model = SavedModel(config, (), system, system.init(jax.random.key(0), None))
    monkeypatch.setattr(saved_model, "make_model", lambda *_: model)
    return ("--workdir", run, "--output", tmp_path / "out", "--format=onnx", *SMALL)


def test_packages_that_are_missing_are_named(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "expected the extra onnx, as pip install" in error_of("export", *toy)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_operation_that_onnx_lacks_is_named(toy, tmp_path, monkeypatch):
    def to_onnx(function, inputs, opset):
        for eqn in jax.make_jaxpr(function)(*inputs).eqns:
            if eqn.primitive.name == "reduce_sum":
                raise NotImplementedError("no\nplugin")

    for name in ("jax2onnx", "onnx", "onnxruntime"):
        module = SimpleNamespace(to_onnx=to_onnx, __spec__=ModuleSpec(name, None))
        monkeypatch.setitem(sys.modules, name, module)
    assert error_of("export", *toy) == (
        "--format onnx: mask_track_rcnn: jax2onnx cannot write the operation"
        " 'reduce_sum': NotImplementedError: no plugin"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_published_names_are_not_loaded(tmp_path):
    record = '{"format": "safetensors", "version": 1, "layout": "swin"}'
    (tmp_path / "export.json").write_text(record)
    with pytest.raises(ValueError, match="got those of swin; `convert --kind swin`"):
        vis_jax.load(tmp_path)


def test_what_an_export_in_a_bucket_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Bucket, "folder", tmp_path, raising=False)
    (tmp_path / "export.json").write_text('{"format": "stablehlo", "version": 1}')
    with pytest.raises(ValueError, match="^bucket:///program.json: "):
        vis_jax.load("bucket://")


def test_a_step_in_onnx_is_not_loaded(tmp_path):
    (tmp_path / "export.json").write_text('{"format": "onnx", "version": 1}')
    with pytest.raises(ValueError, match="got a step in ONNX, which ONNX Runtime runs"):
        vis_jax.load(tmp_path)

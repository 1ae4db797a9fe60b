"""`export` writes the model of the run, or nothing."""

import importlib.util
import json
import re
import sys

import jax
import numpy as np
import pytest
from absl import flags

import vis_jax
from tests.command_line import call, error_of
from tests.saved_runs import NAMES, write_run
from tests.stand_in_bucket import Bucket
from vis_jax.commands import export, export_safetensors, saved_model
from vis_jax.converters import safetensors_file
from vis_jax.converters.files import read_weights
from vis_jax.converters.load import convert_file
from vis_jax.export.agreement import Agreement
from vis_jax.params import flatten, unflatten
from vis_jax.paths import INCOMPLETE
from vis_jax.training.checkpoint import load_variables
from vis_jax.training.initial import load_initial
from vis_jax.training.tree_check import MismatchError

SMALL = ("--height=64", "--width=96", "--check_frames=3")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    write_run(folder, "mask_track_rcnn_shapes", {"model.backbone.norm": "frozen_stats"})
    scores = folder / "evaluation" / "step_4" / "scores.json"
    scores.parent.mkdir(parents=True)
    scores.write_text(json.dumps({"AP": 0.25, "APm": None, "HOTA": 0.5}))
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder, and what the command printed."""
    output = tmp_path_factory.mktemp("out") / "deeper" / "model"
    words = ("--workdir", run, "--output", output, "--license", "cc-by-4.0", *SMALL)
    outcome = call("export", *words)
    assert outcome.code == 0, outcome.err
    return output, outcome.out


def write(saved, folder, dtype):
    """The files of a model, without the check."""
    folder.mkdir()
    values = flags.FlagValues()
    export_safetensors.define(values)
    values(["vis_jax", f"--dtype={dtype}"])
    export_safetensors.write(saved, folder, values)
    return folder


def same(one, other):
    one, other = flatten(one), flatten(other)
    assert one.keys() == other.keys()
    for path, value in one.items():
        assert value.dtype == other[path].dtype
        np.testing.assert_array_equal(value, other[path], err_msg=path)


def test_everything_that_reads_a_model_reads_the_export(run, exported, tmp_path):
    output, text = exported
    expected = load_variables(run)
    same(load_variables(output), expected)
    zeros = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), expected)
    same(load_initial(str(output), zeros, fresh=()), expected)
    model = vis_jax.load(output)
    assert model.names == list(NAMES)
    # The export of an export is the same files.
    again = write(model._saved, tmp_path / "again", "float32")
    for name in ("model.safetensors", "config.json", "categories.json"):
        assert (again / name).read_bytes() == (output / name).read_bytes()
    assert [path.name for path in output.parent.iterdir()] == ["model"]
    assert re.search(r"^score difference +0$", text, re.M)
    assert re.search(r"^equal mask pixels +1.000000$", text, re.M)
    assert int(re.search(r"^check +3 frames, (\d+) tracks$", text, re.M)[1]) > 0


def test_the_model_card_says_what_is_known(exported):
    card = (exported[0] / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: vis_jax\nlicense: "cc-by-4.0"\n')
    for row in (
        "| system | mask\\_track\\_rcnn |",
        "| data | moving\\_shapes |",
        "| updates | 4 |",
        "| evaluation | AP | HOTA |",
        "| test | 25.0 | 50.0 |",
        "Classes: shape 1, shape 2, shape 3",
    ):
        assert row in card
    record = json.loads((exported[0] / "export.json").read_text())
    assert record == {
        "format": "safetensors",
        "version": 1,
        "system": "mask_track_rcnn",
        "dtype": "float32",
    }


def test_bfloat16_halves_the_parameters_and_nothing_else(run, exported, tmp_path):
    output = write(vis_jax.load(exported[0])._saved, tmp_path / "small", "bfloat16")
    found, expected = flatten(load_variables(output)), flatten(load_variables(run))
    assert found.keys() == expected.keys()
    worst = 0.0
    for path, value in found.items():
        assert value.dtype == expected[path].dtype
        np.testing.assert_allclose(value, expected[path], rtol=2**-8, err_msg=path)
        worst = max(worst, np.abs(value - expected[path]).max())
        if not path.startswith("params/"):
            np.testing.assert_array_equal(value, expected[path])
    assert worst > 0
    size = sum(value.nbytes for value in expected.values())
    assert (output / "model.safetensors").stat().st_size < 0.6 * size


def test_int8_is_a_quarter_and_read_without_qwix(exported, tmp_path, monkeypatch):
    pytest.importorskip("qwix")
    output = write(vis_jax.load(exported[0])._saved, tmp_path / "small", "int8")
    monkeypatch.setitem(sys.modules, "qwix", None)
    found, expected = (
        flatten(load_variables(output)),
        flatten(load_variables(exported[0])),
    )
    assert found.keys() == expected.keys()
    for path, value in found.items():
        assert value.dtype == expected[path].dtype
        largest = np.abs(expected[path]).max()
        np.testing.assert_allclose(value, expected[path], atol=largest / 250)
    size = sum(value.nbytes for value in expected.values())
    assert (output / "model.safetensors").stat().st_size < 0.35 * size


def test_int8_without_qwix_names_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = ("--workdir", run, "--output", tmp_path / "out", "--dtype=int8")
    assert "expected the extra int8, as pip install" in error_of("export", *words)


def test_published_names_are_a_file_for_convert(run, tmp_path):
    output = tmp_path / "published"
    words = ("--workdir", run, "--output", output, *SMALL)
    layout = ("--layout=mask_track_rcnn", "--dtype=bfloat16")
    # With random parameters every score is nearly a tie.
    outcome = call(
        "export", *words, *layout, "--score_tolerance=1", "--pixel_tolerance=0"
    )
    assert outcome.code == 0, outcome.err
    # It ran the file, which is rounded, and not the model once more.
    assert float(re.search(r"^score difference +(\S+)$", outcome.out, re.M)[1]) > 0
    reason = "not measured: the classes are not those of moving shapes"
    assert re.search(rf"^change in AP +{reason}$", outcome.out, re.M)
    names = read_weights(output).keys()
    assert {"backbone.layer1.0.conv1.weight", "track_head.fcs.1.bias"} <= names
    assert f"{len(names)} tensors as mask_track_rcnn names them" in outcome.out
    expected = load_variables(run)
    empty = jax.tree.map(np.zeros_like, expected)
    found, report = convert_file(output, empty, "mask_track_rcnn")
    assert not report.new
    for path, value in flatten(found).items():
        np.testing.assert_allclose(value, flatten(expected)[path], rtol=2**-8)
    assert "`convert --kind mask_track_rcnn`" in error_of(
        "export", "--workdir", run, "--checkpoint", output, "--output", tmp_path / "x"
    )


def test_beyond_the_tolerance_nothing_is_left_behind(run, tmp_path, monkeypatch):
    off = Agreement(frames=3, tracks=2, scores=0.25, pixels=0.5)
    monkeypatch.setattr(export, "_check_itself", lambda *_: off)
    words = ("--workdir", run, "--output", tmp_path / "out", *SMALL)
    message = error_of("export", *words, "--score_tolerance=0.3")
    expected = "up to 0.3 and at least 1 of the mask pixels equal, got 0.25 and 0.5"
    assert message.startswith("--format safetensors: expected a difference of scores")
    assert expected in message
    assert not list(tmp_path.iterdir())
    both = ("--score_tolerance=0.3", "--pixel_tolerance=0.4")
    monkeypatch.setattr(Bucket, "folder", tmp_path, raising=False)
    words = (*words, "--output", "bucket://deeper/out", *both)
    folder = tmp_path / "deeper" / "out"
    folder.mkdir(parents=True)
    for name in (INCOMPLETE, "step_1x64x96.jax_export"):  # of a copy that broke off
        (folder / name).touch()
    outcome = call("export", *words)
    assert outcome.code == 0, outcome
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "categories.json", "config.json", "export.json"),
        "model.safetensors",
    ]
    message = error_of("export", *words)
    assert message.endswith("got bucket://deeper/out, which exists")
    same(load_variables("bucket://deeper/out"), load_variables(run))
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"^bucket://deeper/out/model\.safetensors: "):
        load_variables("bucket://deeper/out")


def test_an_output_that_came_meanwhile_stays(run, tmp_path, monkeypatch):
    output = tmp_path / "out"
    given, whole = [], export_safetensors.write

    def two_frames(*arguments):
        return whole(*arguments)._replace(most_frames=2)

    def check(streams, frames):
        given.extend(frames)
        output.mkdir()
        return Agreement(frames=3, tracks=2, scores=0.0, pixels=1.0)

    monkeypatch.setattr(export_safetensors, "write", two_frames)
    monkeypatch.setattr(export, "_check_itself", check)
    words = ("--workdir", run, "--output", output, *SMALL)
    assert "--output: expected a new folder" in error_of("export", *words)
    assert len(given) == 2
    assert list(tmp_path.iterdir()) == [output] and not list(output.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--output", "x"), "--checkpoint: expected a checkpoint, weights by name"),
        (("--workdir", "RUN"), "--output: expected a path, got none"),
        (("--workdir", "RUN", "--output", "RUN"), "which exists"),
        (("--workdir", "RUN", "--output", "x", "--format", "zip"), "--format=zip"),
        (("--workdir", "RUN", "--output", "x", "--license", "a\nb"), "on one line"),
        (
            ("--workdir", "RUN", "--output", "x", "--size", "64x96"),
            "--size: expected none with --format safetensors",
        ),
        (
            ("--workdir", "RUN", "--output", "x", "--frames", "4"),
            "--frames: expected none with --format safetensors",
        ),
        (
            ("--workdir", "RUN", "--output", "x", "--batched"),
            "--batched: expected --format stablehlo beside it, got safetensors",
        ),
        (
            ("--workdir", "RUN", "--output", "x", "--layout", "yolo"),
            "--layout: expected one of ['condinst', 'dino',",
        ),
        (
            ("--workdir", "RUN", "--output", "x", "--layout", "swin", "--dtype=int8"),
            "--dtype: expected float32 or bfloat16 with --layout swin",
        ),
        (
            ("--workdir", "RUN", "--output", "x", "--layout", "yolact"),
            "the model does not fit",
        ),
        (
            ("--workdir", "RUN", "--output", "x", "--source", "absent.mp4"),
            "absent.mp4: no such file or folder",
        ),
    ],
)
def test_what_is_wrong_is_one_line(run, words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(run) if word == "RUN" else word for word in words]
    assert expected in error_of("export", *words)
    assert not list(tmp_path.iterdir())


def test_other_variables_are_refused_by_the_header(exported, monkeypatch):
    output = exported[0]
    like = flatten(load_variables(output))
    path = next(path for path in like if path.endswith("/kernel"))
    like[path] = np.zeros((1, *like[path].shape), np.float32)
    monkeypatch.setattr(safetensors_file.Entry, "read", None)  # no number is read
    with pytest.raises(MismatchError, match=f"init_from .*: 1 different: {path}"):
        load_initial(str(output), unflatten(like), fresh=())

    config = saved_model.read_settings_of(
        output / "config.json", {"model.mask_head.dim": 8}
    )
    with pytest.raises(MismatchError, match="checkpoint .*: .*different: params/"):
        saved_model.make_model(config, tuple(enumerate(NAMES)), str(output))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"format": "stablehlo"}, "a program of format stablehlo, which only runs"),
        ({"format": "safetensors", "layout": "swin"}, "`convert --kind swin` makes"),
        ({"format": "zip"}, "format: expected one of"),
        ({"format": "safetensors", "version": 2}, "version: expected 1, got 2"),
        ([], "expected fields"),
    ],
)
def test_a_folder_without_our_weights_says_what_it_is(record, expected, tmp_path):
    if record:
        record = {"version": 1} | record
    (tmp_path / "export.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=expected):
        load_variables(tmp_path)

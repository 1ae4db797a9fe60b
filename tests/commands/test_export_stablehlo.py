"""Exported programs are the model of the run, and need JAX alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags

import vis_jax
from data_pipeline.moving_shapes.dataset import MovingShapes
from tests.command_line import call, error_of
from tests.recipes import recipe
from tests.saved_runs import NAMES, write_run
from tests.stand_in_bucket import Bucket
from vis_jax.commands import export_stablehlo, stored_programs
from vis_jax.commands.export_stablehlo import clip_shapes
from vis_jax.converters.files import read_weights
from vis_jax.converters.safetensors_file import write_safetensors
from vis_jax.export.agreement import compare
from vis_jax.structures import Window

ROOT = Path(__file__).parents[2]
T, SIZE = 3, (64, 96)
SMALL = ("--height=64", "--width=96", f"--check_frames={T}")
FORMAT = ("--format=stablehlo", "--size=64x96")
CLIPS = {"test.mode": "clip", "test.clip_length": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stablehlo") / "run"
    return write_run(folder, "mask_track_rcnn_shapes", CLIPS)


@pytest.fixture(scope="module")
def exported(run):
    """The folder, and what the command printed."""
    output = run.parent / "programs"
    words = ("--workdir", run, "--output", output, *FORMAT, *SMALL)
    outcome = call("export", *words)
    assert outcome.code == 0, outcome.err
    return output, outcome.out


@pytest.fixture(scope="module")
def frames():
    shapes = MovingShapes("test", num_videos=1, length=T, height=SIZE[0], width=SIZE[1])
    return np.stack(list(shapes.read_frames(0, np.arange(T))))


def read_weights_file(path):
    return read_weights(Path(path))


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported[0], tmp_path / "copy")


def test_the_command_says_how_far_the_programs_are_from_the_model(exported):
    folder, printed = exported
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "export.json", "model.safetensors", "program.json"),
        *("start_2x64x96.jax_export", "step_2x64x96.jax_export"),
    }
    words = dict(line.rsplit(maxsplit=1) for line in printed.splitlines())
    assert float(words["score difference"]) < 1e-4
    assert float(words["equal mask pixels"]) > 0.999
    assert json.loads((folder / "export.json").read_text())["format"] == "stablehlo"


def test_the_example_of_the_model_card_runs(exported, monkeypatch):
    monkeypatch.chdir(exported[0])
    card = Path("README.md").read_text()
    code = card.split("```python\n")[2].split("```")[0]
    assert "= step.call(" in code
    # Nothing is compiled.
    code = code.replace("step.call(", "jax.eval_shape(step.call, ")
    code = code.replace("from safetensors.flax import load_file\n", "")
    found = {"jax": jax, "load_file": read_weights_file}
    exec(code, found)
    assert found["predictions"]["class_probs"].shape[1] == len(NAMES)


def test_programs_are_loaded_and_run_like_a_model(run, exported, frames, monkeypatch):
    monkeypatch.setattr(Bucket, "folder", exported[0].parent, raising=False)
    stored, model = vis_jax.load("bucket://programs"), vis_jax.load(run)
    assert stored.names == model.names == list(NAMES)
    assert repr(stored) == "ProgramModel(system='mask_track_rcnn', 8 classes)"
    found = compare(stored.stream(frames), model.stream(frames))
    assert found.tracks and found.scores < 1e-4 and found.pixels > 0.999
    video, expected = stored.track(frames), model.track(frames)
    assert [track.id for track in video.tracks] == [x.id for x in expected.tracks]
    assert video.categories == expected.categories


def test_programs_run_with_jax_alone(exported, frames, tmp_path):
    np.save(tmp_path / "frames.npy", frames)
    code = """
import sys
blocked = ("flax", "tensorflow", "ml_collections", "optax", "orbax")
sys.modules.update(dict.fromkeys(blocked))
import numpy as np, vis_jax
model = vis_jax.load(sys.argv[1])
print(*(track.id for track in model.track(np.load(sys.argv[2])).tracks))
"""
    words = [sys.executable, "-c", code, str(exported[0]), str(tmp_path / "frames.npy")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tracks = vis_jax.load(exported[0]).track(frames).tracks
    assert done.stdout.split() == [str(track.id) for track in tracks] != []


def test_frames_of_other_sizes_are_put_on_the_canvas_there_is(exported, caplog):
    stored = vis_jax.load(exported[0])
    for size in ((30, 40), (200, 100)):
        (frame,) = stored.stream(np.zeros((1, *size, 3), np.uint8))
        assert frame.size == size
    assert "are shrunk to 64 x 32, as no larger program" in caplog.text


def test_settings_of_programs_cannot_be_changed(exported):
    for words in ({"top": 3}, {"categories": ["cat"]}, {"config": {}}):
        with pytest.raises(ValueError, match="exported programs, which cannot be chan"):
            vis_jax.load(exported[0], **words)


def test_programs_are_no_weights(run, exported, tmp_path):
    words = (
        "--workdir",
        run,
        "--output",
        tmp_path / "out",
        "--checkpoint",
        exported[0],
    )
    assert "a program of format stablehlo, which only" in error_of(
        call("export", *words)
    )


def _edited(folder, *path, value):
    """Puts a value into program.json."""
    file = folder / "program.json"
    content = json.loads(file.read_text())
    node = content
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("version",), 2, "version: expected 1, got 2"),
        (("programs",), {}, "programs: expected at least one"),
        (
            ("programs", "../x"),
            {},
            r"programs.\.\./x.start: expected a value, got none",
        ),
        (("window", "length"), 5, r"programs: expected some for clips of \{5\}"),
        (("render", "overlap"), "all", "render.overlap: expected"),
        (("categories",), [[1, "cat"]], r"class_probs: expected float32 \[8, 1\]"),
        (
            ("programs", "2x64x96", "state", "votes/labels", "shape"),
            [1, 8],
            r"state: votes/labels: expected float32 \[1, 8\], got",
        ),
        (("programs", "2x64x96", "state", "more"), None, "state.more: expected fields"),
        (("programs", "2x64x96", "step"), "0" * 64, "damaged: its SHA-256"),
    ],
)
def test_a_manifest_that_is_not_of_its_programs_is_named(copied, path, value, expected):
    _edited(copied, *path, value=value)
    with pytest.raises(ValueError, match=expected):
        vis_jax.load(copied)


def test_a_damaged_program_is_named(copied):
    path = copied / "step_2x64x96.jax_export"
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(ValueError, match="step_2x64x96.jax_export: damaged"):
        vis_jax.load(copied)
    path.unlink()
    with pytest.raises(ValueError, match="expected a program, got no such file"):
        vis_jax.load(copied)


def test_weights_are_compared_before_their_numbers_are_read(copied, monkeypatch):
    path = copied / "model.safetensors"
    arrays = {name: np.array(x) for name, x in read_weights(copied).items()}
    name = next(name for name in arrays if name.endswith("/kernel"))
    write_safetensors(path, arrays | {name: np.zeros((1, 2), np.float32)})
    monkeypatch.setattr(stored_programs, "_numbers", None)
    with pytest.raises(
        ValueError, match=rf"variables: {name}: expected float32 \[1, 2"
    ):
        vis_jax.load(copied)


def given(*words):
    """The flags of the format."""
    values = flags.FlagValues()
    export_stablehlo.define(values)
    flags.DEFINE_string("format", "stablehlo", "", flag_values=values)
    values(["vis_jax", *words])
    return values


def test_shapes_are_those_asked_for():
    clips = recipe("mask_track_rcnn_shapes", "debug", {"test.mode": "clip"})
    whole = recipe("ifr_shapes", "debug", {"test.short_side": 360})
    two, any_number = Window(2, 2), Window(None, None, buckets=(8,))
    found, window = clip_shapes(clips, two, given("--size=64x96,96x64,64x96"))
    assert [*map(str, found)] == ["2x64x96", "2x96x64"] and window == two
    found, window = clip_shapes(whole, any_number, given())
    assert [*map(str, found)] == ["anyx384x640"]
    assert window.buckets == (2 * whole.test.chunk,)
    found, window = clip_shapes(whole, any_number, given("--frames=32,16"))
    assert [*map(str, found)] == ["16x384x640", "32x384x640"]
    assert window.buckets == (16, 32)


@pytest.mark.parametrize(
    ("words", "length", "expected"),
    [
        (["--size=60x96"], 2, "--size: expected height x width in multiples of 32"),
        (["--size=64"], 2, "--size: expected height x width in multiples of 32"),
        (["--frames=8"], 2, "--frames: expected none for a system that reads 2 frames"),
        (
            ["--frames=8,x"],
            None,
            "--frames: expected numbers of frames up to 16384, as",
        ),
        (["--frames=16385"], None, "--frames: expected numbers of frames up to 16384"),
        (
            ["--size=32x16416"],
            2,
            "--size: expected height x width in multiples of 32 up to 16384",
        ),
    ],
)
def test_a_wrong_flag_is_named(words, length, expected):
    with pytest.raises(ValueError) as caught:
        clip_shapes(recipe("ifr_shapes"), Window(length, length), given(*words))
    assert str(caught.value).startswith(expected)


def test_a_program_is_of_one_size():
    tta = recipe("ifr_shapes", "debug", {"test.tta": (64,), "test.short_side": 64})
    with pytest.raises(ValueError, match="expected test.tta ()"):
        clip_shapes(tta, Window(None, None), given())

"""The command: what is wrong with a source is said before a model is made."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from absl import flags
from PIL import Image

from vis_jax.commands import parts, predict, predict_flags, run_settings
from vis_jax.commands.path_flags import at_home
from vis_jax.predict.sources import PredictError
from vis_jax.systems.system import TestSettings


class ModelMadeError(Exception):
    """Stands for the minutes that making a model takes."""


def _run(monkeypatch, source, output, *more):
    def build_system(config):
        raise ModelMadeError

    monkeypatch.setattr(predict, "define_config", lambda values, arguments: None)
    config = SimpleNamespace(test=TestSettings())
    monkeypatch.setattr(predict, "read_config", lambda values: config)
    monkeypatch.setattr(parts, "read_categories", lambda workdir: [(1, "cat")])
    monkeypatch.setattr(parts, "keep_user_compilations", lambda: None)
    monkeypatch.setattr(run_settings, "with_classes", lambda config, number: config)
    monkeypatch.setattr(parts, "build_system", build_system)
    values = flags.FlagValues()
    predict.define(values, [])
    arguments = ["--workdir=run", f"--source={source}", f"--output={output}", *more]
    values(["predict", *arguments])
    predict.run(values)


def test_a_song_is_refused_before_a_model_is_made(monkeypatch, tmp_path):
    (tmp_path / "song.m4a").write_bytes(b"no video")
    with pytest.raises(PredictError, match=r"song\.m4a: not a readable video"):
        _run(monkeypatch, tmp_path / "song.m4a", tmp_path / "out")


def test_the_output_and_classes_are_checked_before_a_model_is_made(
    monkeypatch, tmp_path
):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(PredictError, match=r"full: not empty"):
        _run(monkeypatch, tmp_path / "0.png", tmp_path / "full")
    with pytest.raises(OSError, match=r"'/proc/out'$"):  # where no folder can be made
        _run(monkeypatch, tmp_path / "0.png", "/proc/out")
    with pytest.raises(ValueError, match="did you mean cat"):
        _run(monkeypatch, tmp_path / "0.png", tmp_path / "out", "--classes=cats")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "full"]


@pytest.mark.parametrize(
    ("more", "lines"), [((), 1), (("--fps=6",), 0), (("--novideo",), 0)]
)
def test_a_rate_out_of_range_is_a_warning(monkeypatch, tmp_path, capsys, more, lines):
    path = tmp_path / "timelapse.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(1, 120))
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for t in range(3):
            frame = np.full((48, 64, 3), 40 * t, np.uint8)
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    with pytest.raises(ModelMadeError):
        _run(monkeypatch, path, tmp_path / "out", *more)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == lines
    for line in errors:
        assert line.startswith(f"warning: {path}: 1/120 frames a second; ")
        assert "--fps" in line


def test_a_part_and_the_home_of_the_user_are_read_from_flags(monkeypatch, tmp_path):
    (tmp_path / "frames").mkdir()
    for t in range(12):
        Image.new("RGB", (8, 8)).save(tmp_path / f"frames/{t}.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelMadeError):
        _run(monkeypatch, "~/frames", tmp_path / "out", "--start=0:01", "--every=2")
    with pytest.raises(PredictError, match=r"frames: has no frame at 2 s or later"):
        _run(monkeypatch, "~/frames", tmp_path / "out", "--start=2")
    home = str(tmp_path)
    assert at_home("--output=~/a=b") == f"--output={home}/a=b"
    assert at_home("~/a") == f"{home}/a"
    assert at_home("--source=a~") == "--source=a~" and at_home("x=~/a") == "x=~/a"


def test_the_size_of_raw_frames_is_width_x_height():
    assert predict_flags.raw_size("640x360") == (360, 640)
    assert predict_flags.raw_size(None) is None


@pytest.mark.parametrize("text", ["640", "640x", "0x360", "640x360x3", "640 x 360"])
def test_other_sizes_of_raw_frames_are_named(monkeypatch, tmp_path, text):
    expected = f"--raw: expected width x height as 640x360, got {text}"
    with pytest.raises(ValueError, match=expected):
        _run(monkeypatch, "-", tmp_path / "out", f"--raw={text}")


def test_raw_frames_are_no_file(monkeypatch, tmp_path):
    with pytest.raises(PredictError, match=r"--raw: expected - as the source, got a"):
        _run(monkeypatch, "a.mp4", tmp_path / "out", "--raw=640x360")

"""The command: what is wrong with a source is said before a model is made."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from absl import flags

from vis_jax.commands import parts, predict, run_settings
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


def test_the_size_of_raw_frames_is_width_x_height():
    assert predict.raw_size("640x360") == (360, 640)
    assert predict.raw_size(None) is None


@pytest.mark.parametrize("text", ["640", "640x", "0x360", "640x360x3", "640 x 360"])
def test_other_sizes_of_raw_frames_are_named(monkeypatch, tmp_path, text):
    expected = f"--raw: expected width x height as 640x360, got {text}"
    with pytest.raises(ValueError, match=expected):
        _run(monkeypatch, "-", tmp_path / "out", f"--raw={text}")


def test_raw_frames_are_no_file(monkeypatch, tmp_path):
    with pytest.raises(PredictError, match=r"--raw: expected - as the source, got a"):
        _run(monkeypatch, "a.mp4", tmp_path / "out", "--raw=640x360")

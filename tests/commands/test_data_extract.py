"""`data extract`: frames of videos as files."""

import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tests.command_line import call, error_of
from vis_jax.commands.predict_videos import SOME_FAILED
from vis_jax.main import main
from vis_jax.predict import extract as module
from vis_jax.predict.sinks import VideoSink


def write_video(path, frames=12, shade=10):
    """Frame k is grey of level shade + 10 k; 12 frames a second."""
    with VideoSink(path, fps=Fraction(12), height=32, width=48) as sink:
        for k in range(frames):
            sink.write(np.full((32, 48, 3), shade + 10 * k, np.uint8))
    return path


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "cat.mp4")
    write_video(folder / "dog.mp4", frames=5)
    (folder / "notes.md").write_text("no video")
    return folder


@pytest.fixture
def failures(capsys):
    """Runs a command that fails for some videos; returns a line for each."""

    def run(*words):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        assert caught.value.code == SOME_FAILED
        return capsys.readouterr().err.splitlines()

    return run


def test_every_nth_frame_of_a_folder_of_videos(videos, tmp_path):
    words = ("data", "extract", "--source", videos, "--output", tmp_path / "out")
    outcome = call(*words, "--every=5", "--start=0.16", "--format=png")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [
        "left out      notes.md: no video",
        "video         cat: 2 frames",
        "video         dog: 1 frames",
        f"frames        3 of 2 videos in {tmp_path / 'out'}",
    ]
    # 0.16 s are after frame 1 of 12 a second.
    names = sorted(p.name for p in (tmp_path / "out/cat").glob("*.png"))
    assert names == ["cat_000002.png", "cat_000007.png"]
    for name in names:
        level = np.asarray(Image.open(tmp_path / "out/cat" / name)).mean()
        assert abs(level - (10 + 10 * int(name[4:10]))) < 4


def test_a_second_run_goes_on_where_the_first_was_stopped(
    videos, tmp_path, monkeypatch, failures
):
    words = ("data", "extract", "--source", videos, "--output", tmp_path / "out")
    save = module._save

    def stop(pixels, file):
        if "dog" in str(file) and file.name == "dog_000003.jpg":
            raise KeyboardInterrupt
        save(pixels, file)

    monkeypatch.setattr(module, "_save", stop)
    assert call(*words).code == 130
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["cat"]
    monkeypatch.setattr(module, "_save", save)
    outcome = call(*words)
    assert "cat: 12 frames (there already, not read again)" in outcome.out
    assert "dog: 5 frames\n" in outcome.out
    assert len(list((tmp_path / "out/dog").glob("*.jpg"))) == 5
    lines = failures(*words, "--every=2")
    assert [line.startswith("failed: ") for line in lines] == [True, True]
    assert lines[0].endswith("frames of the same video, got other every")


def test_a_video_that_cannot_be_read_does_not_stop_the_others(
    videos, tmp_path, failures
):
    (videos / "cat.mp4").write_bytes(b"no video")
    words = ("data", "extract", "--source", videos, "--output", tmp_path / "out")
    (line,) = failures(*words)
    assert line.startswith(f"failed: {videos}/cat.mp4: not a readable video")
    assert len(list((tmp_path / "out/dog").glob("*.jpg"))) == 5


def test_what_is_refused(videos, tmp_path):
    out = ("--output", tmp_path / "out")
    cat = ("data", "extract", "--source", videos / "cat.mp4", *out)
    assert "--source: expected a video" in error_of("data", "extract", *out)
    assert "--every: expected 1 or more, got 0" in error_of(*cat, "--every=0")
    assert "--start: expected seconds or hh:mm:ss" in error_of(*cat, "--start=nan")
    assert "--end: expected a time after --start" in error_of(*cat, "--end=0")
    assert "has no frame at 69 s or later" in error_of(*cat, "--start=1:09")
    assert "live source" in error_of("data", "extract", "--source=-", *out)
    (tmp_path / "out/cat").mkdir(parents=True)
    (tmp_path / "out/cat/000000.jpg").write_text("mine")
    assert "got one with other files" in error_of(*cat)
    (tmp_path / "out/cat" / module.RECORD).write_text(json.dumps([]))
    assert "got other source and bytes" in error_of(*cat)
    names = [p.name for p in (tmp_path / "out/cat").iterdir()]
    assert sorted(names) == [module.RECORD, "000000.jpg"]

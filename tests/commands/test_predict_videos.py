"""`predict` on many videos, with a stand-in for the model."""

import dataclasses
import json
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl import flags
from PIL import Image

from tests.stand_in_bucket import Bucket
from vis_jax.commands import (
    evaluate,
    parts,
    predict,
    predict_videos,
    processes,
    run_settings,
)
from vis_jax.evaluate import infer
from vis_jax.paths import INCOMPLETE
from vis_jax.predict import loop, sources
from vis_jax.results.frame import FrameResult, LiveTracks
from vis_jax.structures import Window
from vis_jax.systems.system import TestSettings

pytestmark = pytest.mark.usefixtures("types_unchecked")


class Devices:
    """Streams for two devices, which see one light object, or stop the process."""

    def __init__(self):
        self.asked, self.stops = [], False
        self._lock = threading.Lock()

    def stream(self, frames, **unused):
        tracks = LiveTracks(np.ones(1, np.int32), np.full((1, 1), 0.5, np.float32))
        for index, frame in enumerate(frames):
            if not index:
                with self._lock:
                    self.asked.append(int(frame[0, 0, 0]))
            if self.stops:
                raise KeyboardInterrupt
            yield FrameResult(index, tracks, np.zeros(0, int), [])


@pytest.fixture
def devices(monkeypatch):
    found = Devices()
    config = SimpleNamespace(test=TestSettings(top=3))
    system = SimpleNamespace(window=SimpleNamespace(length=None))
    monkeypatch.setattr(predict, "define_config", lambda values, arguments: None)
    monkeypatch.setattr(predict_videos, "read_config", lambda values: config)
    monkeypatch.setattr(parts, "read_categories", lambda workdir: [(1, "cat")])
    monkeypatch.setattr(parts, "keep_user_compilations", lambda: None)
    monkeypatch.setattr(parts, "build_system", lambda config: system)
    monkeypatch.setattr(parts, "load_model", lambda system, checkpoint: {})
    monkeypatch.setattr(run_settings, "with_classes", lambda config, number: config)
    monkeypatch.setattr(evaluate, "fingerprint", lambda config, variables: "one")
    window = Window(None, None, buckets=(8,))
    program = SimpleNamespace(window=window, memory=lambda clip: clip.images.size)
    monkeypatch.setattr(infer, "make_programs", lambda *unused: [program, program])
    monkeypatch.setattr(infer, "run", lambda program, test: found.stream)
    return found


def run(source, output, *more, code=0):
    values = flags.FlagValues()
    predict.define(values, [])
    words = ["--workdir=run", f"--source={source}", f"--output={output}", *more]
    values(["predict", *words])
    if code:
        with pytest.raises(SystemExit) as caught:
            predict.run(values)
        assert caught.value.code == code
    else:
        predict.run(values)


@pytest.fixture
def folder(tmp_path):
    """Five videos, of which number 3 changes its size."""
    for number in range(5):
        (tmp_path / f"in/v{number}").mkdir(parents=True)
        for t in range(3):
            size = (8, 10 + (number == 3 and t == 1), 3)
            image = Image.fromarray(np.full(size, number, np.uint8))
            image.save(tmp_path / f"in/v{number}/{t}.png")
    return tmp_path / "in"


FILES = ["results.json", "run.json", "tracks.jsonl", "video.json"]


def left(output):
    return {
        path.name: sorted(p.name for p in path.iterdir()) for path in output.iterdir()
    }


def test_one_bad_video_does_not_stop_the_others(devices, folder, tmp_path, capsys):
    output = tmp_path / "out"
    run(folder, output, "--novideo", code=3)
    assert sorted(devices.asked) == [0, 1, 2, 4]
    assert left(output) == {f"v{number}": FILES for number in (0, 1, 2, 4)}
    out, err = capsys.readouterr()
    lines = out.splitlines()[1:]
    found = [f"found         v{n}: 1 of 1 tracks reach 0.3: 1 cat" for n in range(5)]
    assert sorted(lines[:8])[:4] == [*found[:3], found[4]]
    for number, line in zip((0, 1, 2, 4), sorted(lines[:8])[4:], strict=True):
        assert line.startswith(f"memory        v{number}: about 4.4 MB for 8 frames")
    assert lines[8:] == ["videos        4 of 5", f"output        {output}"]
    bad = folder / "v3" / "1.png"
    assert err == f"failed: {bad}: expected the size of the first frame, 8 x 10 " + (
        "(height x width), got 8 x 11 (height x width)\n"
    ).replace(" (height x width)\n", "\n")
    (info,) = json.loads((output / "v2/video.json").read_text())["videos"]
    assert (info["name"], info["length"]) == ("v2", 3)

    # Mended, it is the only one that is predicted when the command is started again.
    Image.fromarray(np.full((8, 10, 3), 3, np.uint8)).save(bad)
    devices.asked.clear()
    run(folder, output, "--novideo")
    assert devices.asked == [3]
    assert capsys.readouterr().out.splitlines()[2:4] == [
        found[3],
        "videos        5 of 5",
    ]
    devices.asked.clear()
    run(folder, output, "--novideo")
    assert devices.asked == []

    # Other settings do not replace results unasked.
    run(folder, output, "--novideo", "--score_threshold=0.7", code=3)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 5
    assert "not empty; pass overwrite to replace results" in errors[0]
    run(folder, output, "--novideo", "--score_threshold=0.7", "--overwrite")
    assert sorted(devices.asked) == [0, 1, 2, 3, 4]
    assert left(output) == {f"v{number}": FILES for number in range(5)}


def test_shards_predict_every_video_once(devices, folder, tmp_path, capsys):
    Image.fromarray(np.full((8, 10, 3), 3, np.uint8)).save(folder / "v3/1.png")
    (folder / "notes.md").touch()
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"in/v{number}\n" for number in range(5)))
    run(listed, tmp_path / "out", "--novideo", "--shard=1/2")
    assert len(devices.asked) in (2, 3)  # as the sizes of the files are
    out, err = capsys.readouterr()
    line = "videos        5 in 2 shares; by bytes the largest is 1."
    assert out.splitlines()[1].startswith(line)
    assert err == ""
    run(folder, tmp_path / "out", "--novideo", "--shard=2/2")
    assert sorted(devices.asked) == [0, 1, 2, 3, 4]
    warning = f"warning: {folder / 'notes.md'}: no video, left out\n"
    assert capsys.readouterr().err == warning


def test_each_video_goes_the_way_of_its_length(
    devices, folder, tmp_path, monkeypatch, capsys
):
    """Those above the largest bucket clip by clip."""
    asked = []

    @dataclasses.dataclass
    class Config:
        test: TestSettings = TestSettings(frame_buckets=(2, 4), clip_length=2)

    def build_system(config):
        asked.append(config.test.mode)
        length = 2 if config.test.mode == "clip" else None
        return SimpleNamespace(window=SimpleNamespace(length=length))

    for t in range(3, 5):
        Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(folder / f"v2/{t}.png")
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(folder / "v3/1.png")
    monkeypatch.setattr(predict_videos, "read_config", lambda values: Config())
    monkeypatch.setattr(parts, "build_system", build_system)
    run(folder, tmp_path / "out", "--novideo")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {folder / 'v2'}: 5 frames, more than test.frame_")
    assert set(asked) == {"video", "clip"}
    assert len(left(tmp_path / "out")) == 5


def test_parts_and_formats_are_of_every_video_and_of_the_run(
    devices, folder, tmp_path, capsys
):
    Image.fromarray(np.full((8, 10, 3), 3, np.uint8)).save(folder / "v3/1.png")
    sources = [f"--source={folder / 'v1'}", "--every=2", "--save=csv,json"]
    run(folder / "v0", tmp_path / "out", *sources)
    files = ["results.json", "run.json", "tracks.csv", "video.json"]
    assert left(tmp_path / "out") == {"v0": files, "v1": files}
    (info,) = json.loads((tmp_path / "out/v1/video.json").read_text())["videos"]
    assert (info["length"], info["fps"]) == (2, 3)
    devices.asked.clear()
    run(folder / "v0", tmp_path / "out", *sources)
    assert devices.asked == []
    run(folder / "v0", tmp_path / "out", *sources, "--every=1", code=3)
    assert "not empty; pass overwrite" in capsys.readouterr().err


def test_a_stopped_command_leaves_whole_videos_only(devices, folder, tmp_path):
    output = tmp_path / "out"
    devices.stops = True
    with pytest.raises(KeyboardInterrupt):
        run(folder, output, "--novideo")
    assert left(output) == {}
    devices.stops = False
    Image.fromarray(np.full((8, 10, 3), 3, np.uint8)).save(folder / "v3/1.png")
    run(folder, output, "--novideo")
    assert left(output) == {f"v{number}": FILES for number in range(5)}


def test_what_cannot_be_opened_or_held_does_not_stop_the_others(
    devices, folder, tmp_path, monkeypatch, capsys
):
    def opened(path, **unused):
        if path == str(folder / "v0"):
            raise PermissionError(13, "Permission denied", f"{path}/0.png")
        if path == str(folder / "v1"):
            raise MemoryError
        return sources.from_arrays(np.zeros((2, 8, 10, 3), np.uint8))

    monkeypatch.setattr(sources, "open_source", opened)
    run(folder, tmp_path / "out", "--novideo", code=3)
    assert sorted(left(tmp_path / "out")) == ["v2", "v3", "v4"]
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"failed: {folder}/v0/0.png: Permission denied",
        f"failed: {folder}/v1: not enough memory",
    ]


def test_an_output_that_cannot_be_written_stops_the_others(
    devices, folder, tmp_path, monkeypatch
):
    def fails(source, output, *unused, **more):
        raise OSError(28, "No space left on device", str(output / "results.json"))

    monkeypatch.setattr(loop, "predict_whole", fails)
    with pytest.raises(OSError, match="No space left"):
        run(folder, tmp_path / "out", "--novideo")


def test_a_bucket_gets_complete_folders(devices, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Bucket, "folder", tmp_path, raising=False)
    run(folder, "bucket://out", "--novideo", code=3)
    output = tmp_path / "out"
    assert left(output) == {f"v{number}": FILES for number in (0, 1, 2, 4)}
    # Left by a copy that broke off, of another run, and of a single video.
    (output / "v1" / INCOMPLETE).touch()
    (output / "v2" / "run.json").write_text("{}")
    (output / "v4" / "run.json").unlink()
    devices.asked.clear()
    capsys.readouterr()
    run(folder, "bucket://out", "--novideo", code=3)
    assert sorted(devices.asked) == [1]
    errors = capsys.readouterr().err
    for name in ("v2", "v4"):
        assert f"bucket://out/{name}: not empty; pass overwrite" in errors
    assert left(output)["v1"] == FILES
    run(folder, "bucket://out", "--novideo", "--overwrite", code=3)
    assert sorted(devices.asked) == [1, 2, 4]
    assert json.loads((output / "v2/run.json").read_text())["source"] == "v2"
    assert left(output) == {f"v{number}": FILES for number in (0, 1, 2, 4)}


def test_several_processes_refuse_one_video(devices, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VIS_JAX_DISTRIBUTED", "auto")
    monkeypatch.setattr(processes, "together", nullcontext)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    expected = "--source: expected many videos for several processes, got .*, one video"
    with pytest.raises(ValueError, match=expected):
        run(folder / "v0", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--shard=3/2"], "--shard: expected NUMBER/COUNT"),
        (["--raw=6x4"], "--raw: expected - as the source"),
        (["--fps=0"], "--fps: expected 0.01 .. 1000 frames a second, got 0"),
        (["--start=1:x"], "--start: expected seconds or hh:mm:ss, got 1:x"),
        (["--classes=cat,bat"], "--classes: expected some of cat, got bat"),
        (["--opacity=1.5"], "--opacity: expected 0 .. 1, got 1.5"),
        (["--trails=-1"], "--trails: expected 0 .. 100000, got -1"),
        (["--tracks=0"], "--tracks: expected ids as 1,4,7, got 0"),
        (["--save=json,xml"], "--save: expected some of json,jsonl,csv,.*, got xml"),
    ],
)
def test_what_is_wrong_for_all_videos_stops_at_once(
    devices, folder, tmp_path, words, expected
):
    with pytest.raises(ValueError, match=expected):
        run(folder, tmp_path / "out", *words)
    assert not devices.asked
    expected = "--shard: expected a folder of videos or a .txt file that lists them"
    with pytest.raises(ValueError, match=expected):
        run(folder / "v0", tmp_path / "out", "--shard=1/2")

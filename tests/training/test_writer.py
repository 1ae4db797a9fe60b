import struct

import numpy as np
from tensorboardX.proto.event_pb2 import Event

from vis_jax.training.loggers import TensorBoard
from vis_jax.training.metrics_file import METRICS_FILE, MetricsFile, read_metrics
from vis_jax.training.writer import RunWriter, progress_line

VALUES = {
    "dice": 1.5,
    "loss": 2.5,
    "learning_rate": 1e-4,
    "steps_per_second": 0.5,
    "clips_per_second": 8.0,
}


def events(folder):
    """All events of TensorBoard files: length, checksum, bytes, checksum, .."""
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_progress_line():
    line = progress_line(20, VALUES, {"lost": 0.0}, num_steps=90)
    assert line == "step 20/90  loss 2.5  dice 1.5  8.0 clips/s  ETA 0:02:20"
    line = progress_line(20, VALUES, {"lost": 0.25}, num_steps=90)
    assert line.startswith("step 20/90  loss 2.5  dice 1.5  lost 0.25  8.0 clips/s")


def test_no_time_is_promised_before_the_speed_is_known():
    values = VALUES | {"steps_per_second": 0.0, "clips_per_second": 0.0}
    assert progress_line(1, values, {}, num_steps=90).endswith("0.0 clips/s  ETA -")


def writer_of(workdir):
    return RunWriter(90, [MetricsFile(str(workdir)), TensorBoard(str(workdir))])


def test_writes_scalars_images_and_lines(tmp_path, capsys):
    writer = writer_of(tmp_path)
    writer.phase("data          2 videos")
    writer.progress(20, VALUES, {"lost": 0.0})
    writer.scalars(20, {"AP": 12.5}, group="eval")
    image = np.full((4, 6, 3), 200, np.uint8)
    writer.images(20, {"clip": image})
    writer.close()
    found = {
        value.tag: (event.step, value)
        for event in events(tmp_path)
        for value in event.summary.value
    }
    assert found["train/loss"][0] == 20
    assert found["train/loss"][1].simple_value == 2.5
    assert found["notes/lost"][1].simple_value == 0.0
    assert "train/lost" not in found
    assert found["eval/AP"][1].simple_value == 12.5
    assert (found["clip"][1].image.height, found["clip"][1].image.width) == (4, 6)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "data          2 videos"
    assert lines[1].startswith("step 20/90  loss 2.5")
    lines = read_metrics(tmp_path / METRICS_FILE)
    assert [line.pop("time") > 1e9 for line in lines] == [True] * 3
    assert lines == [
        {"step": 20} | {f"train/{name}": value for name, value in VALUES.items()},
        {"step": 20, "notes/lost": 0.0},
        {"step": 20, "eval/AP": 12.5},
    ]


def test_a_resumed_run_drops_what_the_killed_one_wrote_later(tmp_path):
    for steps in ((10, 20), (15,)):
        writer = writer_of(tmp_path)
        for step in steps:
            writer.scalars(step, {"loss": 1.0}, group="train")
        writer.close()
    restarts = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert restarts[-1] == 15  # TensorBoard drops earlier files' steps from here on


def test_nothing_said_leaves_no_file(tmp_path):
    writer_of(tmp_path).close()
    assert not list(tmp_path.iterdir())

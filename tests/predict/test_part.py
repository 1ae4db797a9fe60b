from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vis_jax.predict.part import WHOLE_VIDEO, Part, read_part
from vis_jax.predict.sources import PredictError, open_source


def test_times_are_seconds_or_hours_minutes_and_seconds():
    assert read_part(None, None, 1) == WHOLE_VIDEO
    assert read_part("90.5", "2:00", 3) == Part(90.5, 120, 3)
    assert read_part("00:01:30", "1:00:00.25", 1) == Part(90, 3600.25, 1)
    for text in ("x", "1:2:3:4", "-1", "1:", ""):
        with pytest.raises(ValueError, match="--start: expected seconds or hh:mm:ss"):
            read_part(text, None, 1)
    with pytest.raises(ValueError, match="--end: expected a time after --start, 5, g"):
        read_part("5", "0:05", 1)
    with pytest.raises(ValueError, match="--every: expected 1 or more, got 0"):
        read_part(None, None, 0)


def _video(path, times, rate=10):
    """Frames whose grey level is their number, at these times in seconds."""
    with av.open(str(path), "w") as container:
        options = {"g": "6", "qp": "0"}  # every sixth frame can be decoded by itself
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, seconds in enumerate(times):
            pixels = np.full((32, 48, 3), 4 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _numbers(source):
    return [round(float(frame[5, 5, 0]) / 4) for frame in source]


PARTS = (
    (Part(), range(40)),
    (Part(every=3), range(0, 40, 3)),
    (Part(start=1.3), range(13, 40)),
    (Part(start=1.25, end=2.0, every=2), range(13, 20, 2)),
    (Part(end=0.35), range(4)),
    (Part(start=3.8), [38, 39]),
)


@pytest.mark.parametrize(("part", "numbers"), PARTS)
def test_a_part_of_a_video_and_of_a_folder(tmp_path, part, numbers):
    numbers = list(numbers)
    path = _video(tmp_path / "v.mp4", np.arange(40) / 10)
    source = open_source(path, part=part)
    for _ in range(2):
        assert _numbers(source) == numbers
    assert source.likely_frames == len(numbers)
    assert source.fps == Fraction(10, part.every)
    seconds = [frame.seconds for frame in source.read()]
    expected = (np.array(numbers) - numbers[0]) / 10
    np.testing.assert_allclose(seconds, expected, atol=1e-6)

    (tmp_path / "frames").mkdir()
    for number in range(24):  # four seconds
        image = Image.fromarray(np.full((8, 8, 3), 4 * number, np.uint8))
        image.save(tmp_path / f"frames/{number}.png")
    folder = open_source(tmp_path / "frames", part=part)
    first, end = part.start * 6, 6 * (4 if part.end is None else part.end)
    inside = [n for n in range(24) if first <= n < end][:: part.every]
    assert _numbers(folder) == inside and folder.num_frames == len(inside)
    assert folder.file_names == tuple(f"{number}.png" for number in inside)


def test_times_of_a_variable_rate_count(tmp_path):
    times = [0, 0.1, 0.5, 2, 2.04, 2.08, 5]
    path = _video(tmp_path / "v.mp4", times)
    source = open_source(path, part=Part(start=0.5, end=5))
    assert _numbers(source) == [2, 3, 4, 5]
    seconds = [frame.seconds for frame in source.read()]
    np.testing.assert_allclose(seconds, [0, 1.5, 1.54, 1.58], atol=2e-3)


def test_a_part_behind_the_end_is_named(tmp_path):
    path = _video(tmp_path / "v.mp4", np.arange(5) / 10)
    with pytest.raises(PredictError, match=r"v\.mp4: has no frame at 9 s or later"):
        open_source(path, part=Part(start=9))
    before = "has no frame from 0 s to before 0.0005 s"
    with pytest.raises(PredictError, match=before):
        open_source(path, part=Part(end=0.0005))
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    with pytest.raises(PredictError, match="has no frame at 9 s or later"):
        open_source(tmp_path / "0.png", part=Part(start=9))

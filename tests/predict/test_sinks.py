from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tests.small_disk import files_up_to
from vis_jax.predict import sinks
from vis_jax.predict.sources import open_source
from vis_jax.visualize.colours import track_colour


@pytest.mark.parametrize("codec", sinks.CODECS)
def test_odd_sizes_are_padded(tmp_path, monkeypatch, codec):
    monkeypatch.setattr(sinks, "CODECS", (codec,))
    path = tmp_path / "video.mp4"
    fps = Fraction(30_000, 1001)
    with sinks.VideoSink(path, fps=fps, height=33, width=47) as video:
        for level in (50, 100, 150):
            video.write(np.full((33, 47, 3), level, np.uint8))
    source = open_source(path)
    assert (source.height, source.width) == (34, 48)
    assert source.fps == fps
    levels = [frame[33, 47].mean() for frame in source]
    np.testing.assert_allclose(levels, [50, 100, 150], atol=4)


@pytest.mark.parametrize("codec", sinks.CODECS)
def test_frames_keep_their_times(tmp_path, monkeypatch, codec):
    monkeypatch.setattr(sinks, "CODECS", (codec,))
    path, fps = tmp_path / "video.mp4", Fraction(30_000, 1001)
    times = [0, 0.0334, 0.2, 0.2, 1.75]  # the two at once get a place each
    with sinks.VideoSink(path, fps=fps, height=32, width=48) as video:
        for seconds in times:
            video.write(np.zeros((32, 48, 3), np.uint8), seconds)
    found = [frame.seconds for frame in open_source(path).read()]
    exact = 1e-3 if codec == "libx264" else 0.02  # times of 16 bits
    np.testing.assert_allclose(found, times, atol=exact)
    assert found[3] > found[2]


def test_overlaps_go_to_the_higher_score():
    masks = np.zeros((2, 1, 4), bool)
    masks[0, 0, :3] = masks[1, 0, 1:] = True
    ids = sinks.id_map(masks, [5, 300], [0.9, 0.4])
    np.testing.assert_array_equal(ids, [[5, 5, 5, 300]])
    ids = sinks.id_map(masks, [5, 300], [0.4, 0.9])
    np.testing.assert_array_equal(ids, [[5, 300, 300, 300]])
    none = sinks.id_map(masks[:0], [], [])
    np.testing.assert_array_equal(none, np.zeros((1, 4)))


def test_id_images_keep_the_numbers_and_show_the_colours(tmp_path):
    ids = np.array([[0, 1, 255]])
    sink = sinks.IdSink(tmp_path / "ids")
    sink.write(ids)
    sink.close()
    with Image.open(tmp_path / "ids" / "00000.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), ids)
        assert image.convert("RGB").getpixel((1, 0)) == track_colour(1)


def test_all_id_images_have_16_bits_where_one_needs_them(tmp_path):
    sink = sinks.IdSink(tmp_path / "ids")
    frames = [[[0, 1, 255]], [[0, 7, 40_000]], [[2, 0, 0]]]
    for ids in frames:
        sink.write(np.array(ids))
    sink.close()
    for number, ids in enumerate(frames):
        with Image.open(tmp_path / "ids" / f"0000{number}.png") as image:
            assert image.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(image), ids)
    with pytest.raises(ValueError, match="expected track ids up to 65535, got 65536"):
        sink.write(np.array([[65_536]]))


def test_a_full_disk_names_the_image(tmp_path):
    sink = sinks.IdSink(tmp_path / "ids")
    with files_up_to(100), pytest.raises(OSError) as caught:
        sink.write(np.arange(10_000)[None])
    assert caught.value.filename == str(tmp_path / "ids" / "00000.png")

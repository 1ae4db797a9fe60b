import numpy as np
from PIL import Image

from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.read_video import pad_frames, resize_frames


def test_resizing_is_pillows():
    frames = np.random.default_rng(0).integers(0, 256, (2, 45, 80, 3), np.uint8)
    resized = resize_frames(frames, 30, 1333)
    assert resized.shape == (2, 30, 53, 3)
    expected = Image.fromarray(frames[1]).resize((53, 30), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized[1], np.asarray(expected))
    assert resize_frames(frames, 45, 1333) is frames


def test_padding_is_zero_and_at_the_bottom_right():
    frames = np.full((1, 30, 53, 3), 7, np.uint8)
    padded = pad_frames(frames, multiple=32)
    assert padded.shape == (1, 32, 64, 3)
    assert padded.sum() == frames.sum()
    np.testing.assert_array_equal(padded[:, :30, :53], frames)
    assert pad_frames(frames, multiple=4).shape == (1, 32, 56, 3)


def test_a_clip_is_read_resized_and_padded(write, annotations):
    dataset = YouTubeVis(write(annotations, images="JPEGImages"), "train")
    images = resize_frames(dataset.read_frames(0, np.array([0, 5])), 96, 200)
    assert images.shape == (2, 96, 128, 3)
    assert pad_frames(images).shape == (2, 96, 128, 3)
    assert images[0, 20, 20, 0] > 240  # the red box, twice as large
    images = resize_frames(dataset.read_frames(0, np.array([4])), 96, 64)
    assert images.shape == (1, 48, 64, 3)
    assert pad_frames(images).shape == (1, 64, 64, 3)

import numpy as np
from PIL import Image

from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.read_video import fit_frame


def test_resizing_is_pillows():
    frame = np.random.default_rng(0).integers(0, 256, (45, 80, 3), np.uint8)
    for size, given in (((30, 53), ()), ((64, 32), (64, 32))):  # [H, W]
        resized = fit_frame(frame, 30, 1333, given)
        expected = Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(resized, np.asarray(expected))
    assert fit_frame(frame, 45, 1333) is frame
    assert fit_frame(frame, 30, 1333, (45, 80)) is frame


def test_a_clip_is_read_and_resized(write, annotations):
    dataset = YouTubeVis(write(annotations, images="JPEGImages"), "train")
    frames = dataset.read_frames(0, np.array([0, 5]))
    images = np.stack([fit_frame(frame, 96, 200) for frame in frames])
    assert images.shape == (2, 96, 128, 3)
    assert images[0, 20, 20, 0] > 240  # the red box, twice as large
    (frame,) = dataset.read_frames(0, np.array([4]))
    images = fit_frame(frame, 96, 64)[None]
    assert images.shape == (1, 48, 64, 3)

import numpy as np
from pycocotools import mask as coco_mask

from tests.report.scene import HOSTILE, LEFT, SIZE, unpack
from vis_jax.report import predicted
from vis_jax.report.pictures import data_uri
from vis_jax.report.predicted import FASTEST, PredictedPage
from vis_jax.report.tubes import MAX_FRAMES, ShownFrames
from vis_jax.results.frame import FrameResult, LiveTracks

CODE = coco_mask.encode(np.asfortranarray(LEFT, np.uint8))


def found(t, *ids, label=0):
    """Tracks of a frame, all with the same mask."""
    probs = np.zeros((len(ids), 2), np.float32)
    probs[:, label] = 0.5
    tracks = LiveTracks(np.array(ids, np.int32), probs)
    return FrameResult(t, tracks, np.arange(len(ids)), [CODE] * len(ids), SIZE)


def page_of(length, *, fps=10.0):
    """Track 7 is in every frame, 2 in the last one only."""
    page = PredictedPage(HOSTILE, SIZE, ("cat", "dog"), fps)
    for t in range(length):
        ids = (7, 2) if t == length - 1 else (7,)
        pixels = np.full((*SIZE, 3), t % 256, np.uint8)
        page.add(pixels, found(t, *ids, label=t % 2))
    return page.content()


def test_short_videos_have_every_frame():
    content = page_of(4)
    (video,) = content["videos"]
    assert (video["frames"], video["step"], video["speed"]) == (4, 1, 10)
    first, second = video["predictions"]
    assert (first["name"], first["start"], len(first["masks"])) == ("7", 0, 4)
    assert (second["name"], second["start"], len(second["masks"])) == ("2", 3, 1)
    assert first["class"] == 1  # as the last frame says
    assert first["colour"] != second["colour"]
    np.testing.assert_array_equal(unpack(first["masks"][3], SIZE), LEFT)


def test_long_videos_have_some_and_stay_small():
    length = 4 * MAX_FRAMES + 2
    content = page_of(length, fps=1000.0)
    (video,) = content["videos"]
    assert video["frames"] == len(video["pictures"]) <= MAX_FRAMES + 1
    assert (video["frames"] - 1) * video["step"] < length
    assert video["frames"] * video["step"] >= length
    assert video["speed"] <= FASTEST
    assert dict(content["summary"]) == {"tracks": 2, "classes": 1, "frames": length}


def test_frames_full_of_detail_stay_small(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    text = data_uri(noise, ShownFrames(360, 640, 1, 1))
    assert len(text) < 61_000  # 100 frames are at most about 6 MB
    (one,) = page_of(1)["videos"][0]["pictures"]
    monkeypatch.setattr(predicted, "MAX_BYTES", 4 * len(one))
    (video,) = page_of(40)["videos"]
    assert 1 <= video["frames"] <= 4
    assert video["frames"] * video["step"] >= 40


def test_a_track_between_the_shown_frames_has_no_mask():
    content = page_of(2 * MAX_FRAMES + 2)
    assert content["videos"][0]["step"] == 4
    masks = {one["name"]: one["masks"] for one in content["videos"][0]["predictions"]}
    assert masks["2"] == [] and len(masks["7"]) == content["videos"][0]["frames"]


def test_a_video_without_tracks():
    page = PredictedPage("x", SIZE, ("cat",), 5.0)
    page.add(np.zeros((*SIZE, 3), np.uint8), found(0))
    (video,) = page.content()["videos"]
    assert (video["predictions"], video["frames"]) == ([], 1)

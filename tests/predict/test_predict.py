import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from tests.small_disk import files_up_to
from vis_jax.predict import loop
from vis_jax.predict.loop import Wanted, predict
from vis_jax.predict.sources import PredictError, open_source
from vis_jax.visualize.colours import track_colour

H, W, T = 72, 96, 4
CATEGORIES = ((3, "cat"), (7, "dog"))


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(T):
        Image.fromarray(np.full((H, W, 3), 40 + t, np.uint8)).save(folder / f"{t}.png")
    return open_source(folder)


def _tube(x):
    """A square that moves right and is absent from the last frame."""
    masks = np.zeros((T, H, W), bool)
    for t in range(T):
        masks[t, 40:64, x + 2 * t : x + 2 * t + 24] = True
    frames = [rle.encode(np.asfortranarray(mask)) for mask in masks]
    return [*frames[:-1], None]


def _never(frames, **size):
    raise AssertionError("the arguments are checked first")


def _prediction(**changes):
    fields = {
        "labels": np.array([1, 0, 1], np.int32),
        "scores": np.array([0.9, 0.6, 0.2], np.float32),
        "track_ids": np.array([4, 1, 9], np.int32),
        "segmentations": [_tube(4), _tube(16), _tube(60)],
    }
    return SimpleNamespace(**(fields | changes))


def _infer(frames, *, height, width, num_frames):
    assert [int(frame[0, 0, 0]) for frame in frames] == [40, 41, 42, 43]
    assert (height, width, num_frames) == (H, W, T)
    return _prediction()


def _predict(source, output, infer=_infer, *, overwrite=False, **wanted):
    return predict(
        source,
        output,
        infer,
        categories=CATEGORIES,
        wanted=Wanted(**wanted),
        overwrite=overwrite,
        progress=False,
    )


def _left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_results_have_every_track_and_say_what_they_are_of(source, tmp_path):
    written = _predict(source, tmp_path / "a" / "out")
    results = json.loads(written.results.read_text())
    assert [entry["category_id"] for entry in results] == [7, 3, 7]
    assert [entry["video_id"] for entry in results] == [1, 1, 1]
    scores = [entry["score"] for entry in results]
    np.testing.assert_allclose(scores, [0.9, 0.6, 0.2], rtol=1e-6)
    for entry, truth in zip(results, _prediction().segmentations, strict=True):
        assert entry["segmentations"][-1] is None
        for got, expected in zip(entry["segmentations"][:-1], truth, strict=False):
            assert got["size"] == [H, W] and isinstance(got["counts"], str)
            np.testing.assert_array_equal(rle.decode(got), rle.decode(expected))
    info = json.loads(written.info.read_text())
    (video,) = info["videos"]
    assert (video["id"], video["length"], video["height"]) == (1, T, H)
    assert video["file_names"] == ["0.png", "1.png", "2.png", "3.png"]
    assert info["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert info["track_ids"] == [4, 1, 9]


def test_the_video_shows_tracks_above_the_threshold(source, tmp_path):
    written = _predict(source, tmp_path / "out", fps=12.5)
    video = open_source(written.video)
    assert (video.num_frames, float(video.fps)) == (T, 12.5)
    frames = list(video)
    for t, x in ((0, 10), (2, 14)):  # inside track 4, clear of track 1
        expected = (40 + t + np.array(track_colour(4))) / 2
        np.testing.assert_allclose(frames[t][58, x], expected, atol=12)
    np.testing.assert_allclose(frames[0][58, 74], 40, atol=6)  # track 9: score 0.2
    np.testing.assert_allclose(frames[3], 43, atol=6)  # no track is present


def test_of_a_track_with_two_classes_the_better_one_is_drawn():
    found = SimpleNamespace(
        labels=[0, 0, 1, 0],
        scores=[0.9, 0.8, 0.7, 0.2],
        track_ids=[2, 1, 2, 3],
        segmentations=[],
    )
    assert loop._shown(found, 0.3).tolist() == [0, 1]
    assert loop._shown(found, 0.1).tolist() == [0, 1, 3]


def test_id_images_follow_the_tracks(source, tmp_path):
    written = _predict(source, tmp_path / "out", write_pngs=True, draw_video=False)
    assert written.video is None and not (tmp_path / "out" / "video.mp4").exists()
    paths = sorted(written.ids.iterdir())
    assert [path.name for path in paths] == [f"{t:05d}.png" for t in range(T)]
    ids = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert set(np.unique(ids)) == {0, 1, 4}
    assert ids[0, 50, 20] == 4 and ids[0, 50, 30] == 1  # shared pixels: 4 is better
    assert not ids[3].any()


def test_no_tracks_at_all(source, tmp_path):
    empty = np.zeros(0, np.int32)
    nothing = SimpleNamespace(
        labels=empty, scores=empty.astype(np.float32), track_ids=empty, segmentations=[]
    )
    written = _predict(source, tmp_path / "out", lambda *_, **__: nothing)
    assert json.loads(written.results.read_text()) == []
    assert open_source(written.video).num_frames == T


def test_an_output_with_content_is_kept(source, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    _predict(source, output)  # empty: fine
    before = (output / "results.json").stat().st_mtime_ns
    with pytest.raises(PredictError, match="out: not empty; pass overwrite"):
        _predict(source, output, infer=_never)
    assert (output / "results.json").stat().st_mtime_ns == before
    with pytest.raises(PredictError, match="expected a folder, found a file"):
        _predict(source, output / "results.json", infer=_never)


def test_overwrite_replaces_what_predict_writes_and_nothing_else(source, tmp_path):
    output = tmp_path / "out"
    _predict(source, output, write_pngs=True)
    (output / "notes.txt").write_text("mine")
    written = _predict(
        source,
        output,
        lambda *_, **__: _prediction(scores=np.array([0.5, 0.4, 0.3])),
        draw_video=False,
        overwrite=True,
    )
    assert _left(output) == ["notes.txt", "results.json", "video.json"]
    assert json.loads(written.results.read_text())[0]["score"] == 0.5
    assert _left(tmp_path) == ["frames", "out"]


def test_a_full_disk_leaves_nothing(source, tmp_path, monkeypatch):
    def full(sink, frame):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop.VideoSink, "write", full)
    with pytest.raises(OSError, match="No space left"):
        _predict(source, tmp_path / "a" / "out", write_pngs=True)
    assert _left(tmp_path) == ["frames"]


@pytest.mark.parametrize("name", ["results.json", "video.mp4"])
def test_a_full_disk_names_the_file(source, tmp_path, name):
    output = _predict(source, tmp_path / "all").results.parent
    size = (output / name).stat().st_size
    with files_up_to(size - 1), pytest.raises(OSError) as caught:
        _predict(source, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / name)
    assert _left(tmp_path) == ["all", "frames"]


def test_a_failure_while_overwriting_keeps_the_earlier_results(
    source, tmp_path, monkeypatch
):
    _predict(source, tmp_path / "out")
    before = (tmp_path / "out" / "results.json").read_bytes()
    monkeypatch.setattr(loop, "draw_frame", None)
    with pytest.raises(TypeError):
        _predict(source, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    assert _left(tmp_path) == ["frames", "out"]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_failing_model_leaves_nothing(source, tmp_path, error):
    def infer(frames, **_):
        next(frames)
        assert any(name.startswith(".out.partial-") for name in _left(tmp_path))
        raise error

    with pytest.raises(error):
        _predict(source, tmp_path / "out", infer)
    assert _left(tmp_path) == ["frames"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1])}, "expected 3 labels, got 2"),
        ({"labels": np.array([0, 1, 2])}, r"expected labels 0 \.\. 1"),
        ({"scores": np.array([0.1, np.nan, 0.2])}, r"expected scores in 0 \.\. 1"),
        ({"track_ids": np.array([0, 1, 2])}, "expected track ids 1, 2"),
        ({"segmentations": [[None] * T, [None], []]}, "4 segmentations of track 1"),
        (
            {"segmentations": [[{"size": [9, 9], "counts": b""}] * T] * 3},
            r"masks of size \[72, 96\]",
        ),
    ],
)
def test_a_prediction_of_another_video_is_an_error(source, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        _predict(source, tmp_path / "out", lambda *_, **__: _prediction(**changes))
    assert _left(tmp_path) == ["frames"]


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf")])
def test_rates_and_thresholds_out_of_range(source, tmp_path, fps):
    with pytest.raises(ValueError, match="fps: expected"):
        _predict(source, tmp_path / "out", _never, fps=fps)
    with pytest.raises(ValueError, match="score_threshold: expected"):
        _predict(source, tmp_path / "out", _never, score_threshold=1.5)


def test_output_is_readable_by_others_as_any_new_folder_is(source, tmp_path):
    _predict(source, tmp_path / "out")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode

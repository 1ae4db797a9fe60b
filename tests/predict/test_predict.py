import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from tests.report.scene import content_in, unpack
from tests.small_disk import files_up_to
from vis_jax.predict import writer
from vis_jax.predict.formats import FORMATS
from vis_jax.predict.loop import Finder, predict
from vis_jax.predict.sources import PredictError, from_arrays, open_source
from vis_jax.predict.writer import Wanted
from vis_jax.results.clock import NO_CLOCK, Clock
from vis_jax.results.frame import FrameResult, LiveTracks
from vis_jax.visualize.colours import track_colour
from vis_jax.visualize.style import STYLE, Style

H, W, T = 72, 96, 4
CATEGORIES = ((3, "cat"), (7, "dog"))
FILES = ["results.json", "tracks.jsonl", "video.json"]
TRACKS = LiveTracks(
    np.array([4, 1, 9], np.int32),
    np.array([[0.1, 0.9], [0.6, 0.0], [0.0, 0.2]], np.float32),
)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(T):
        Image.fromarray(np.full((H, W, 3), 40 + t, np.uint8)).save(folder / f"{t}.png")
    return open_source(folder)


def _mask(x, t):
    """A square that moves right."""
    mask = np.zeros((H, W), bool)
    mask[40:64, x + 2 * t : x + 2 * t + 24] = True
    return mask


def _encoded(mask):
    return rle.encode(np.asfortranarray(mask))


def _frame(t, tracks=TRACKS):
    """Three squares, absent from the last frame."""
    rows = np.arange(3 if t < T - 1 else 0)
    masks = [_encoded(_mask(x, t)) for x in (4, 16, 60)[: len(rows)]]
    return FrameResult(t, tracks, rows, masks, (H, W))


def _stream(frames, *, clock=NO_CLOCK):
    for t, frame in enumerate(frames):
        assert (frame == 40 + t).all() and frame.shape == (H, W, 3)
        yield _frame(t)


def _never(frames, *, clock=NO_CLOCK):
    raise AssertionError("the arguments are checked first")


def _saying(*results):
    def stream(frames, *, clock=NO_CLOCK):
        for _ in frames:
            pass
        yield from results

    return stream


def _run(source, output, stream=_stream, *, top=3, **options):
    finder = Finder(stream, CATEGORIES, top, options.pop("whole", False))
    names = ("overwrite", "clock")
    more = {name: options.pop(name) for name in names if name in options}
    return predict(
        source,
        output,
        finder,
        wanted=_wanted(**options),
        **more,
    )


def _wanted(*, draw_video=True, write_pngs=False, **more):
    drawn = ["mp4"] if draw_video else []
    formats = ("json", "jsonl", *drawn, *(["ids"] if write_pngs else []))
    return Wanted(**({"formats": formats} | more))


def _predict(source, output, stream=_stream, **options):
    return _run(source, output, stream, **options).outputs


def _left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_results_have_every_track_and_say_what_they_are_of(source, tmp_path):
    written = _predict(source, tmp_path / "a" / "out")
    results = json.loads(written.results.read_text())
    assert [entry["category_id"] for entry in results] == [7, 3, 7]
    assert [entry["video_id"] for entry in results] == [1, 1, 1]
    scores = [entry["score"] for entry in results]
    np.testing.assert_allclose(scores, [0.9, 0.6, 0.2], rtol=1e-6)
    for entry, x in zip(results, (4, 16, 60), strict=True):
        masks = rle.decode(entry["segmentations"])
        expected = [_mask(x, t) for t in range(T - 1)] + [np.zeros((H, W), bool)]
        np.testing.assert_array_equal(np.moveaxis(masks, 2, 0), expected)
    info = json.loads(written.info.read_text())
    (video,) = info["videos"]
    assert (video["id"], video["length"], video["height"]) == (1, T, H)
    assert video["file_names"] == ["0.png", "1.png", "2.png", "3.png"]
    assert info["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert info["track_ids"] == [4, 1, 9]


def test_the_video_shows_tracks_above_the_threshold(source, tmp_path):
    style = Style(labels=False)
    written = _predict(source, tmp_path / "out", fps=12.5, style=style)
    video = open_source(written.video)
    frames = list(video)
    assert (len(frames), float(video.fps)) == (T, 12.5)
    for t, x in ((0, 10), (2, 14)):  # inside track 4, clear of track 1
        colour = np.array(track_colour(4))
        expected = 40 + t + STYLE.opacity * (colour - 40 - t)
        np.testing.assert_allclose(frames[t][58, x], expected, atol=12)
    np.testing.assert_allclose(frames[0][58, 74], 40, atol=6)  # track 9: score 0.2
    np.testing.assert_allclose(frames[3], 43, atol=6)  # no track is present


def test_the_video_is_drawn_in_the_style_that_is_wanted(source, tmp_path):
    style = Style(opacity=1.0, line_width=1.0, labels=False, boxes=True, trails=9)
    plain = _predict(source, tmp_path / "plain", style=style._replace(trails=0))
    written = _predict(source, tmp_path / "out", style=style)
    frames = list(open_source(written.video))
    np.testing.assert_allclose(frames[2][58, 10], track_colour(4), atol=12)
    other = list(open_source(plain.video))
    changed = np.abs(frames[2].astype(int) - other[2]).max(-1) > 40
    rows, columns = np.nonzero(changed)
    # The paths of the two squares that are shown, 4 pixels each.
    assert rows.min() >= 50 and rows.max() <= 54
    assert columns.min() >= 14 and columns.max() <= 34


def test_a_frame_is_drawn_with_its_own_masks_when_they_come_late(source, tmp_path):
    def late(frames, *, clock=NO_CLOCK):
        count = 0
        for count, _ in enumerate(frames, 1):
            if count > 2:
                yield _frame(count - 3)
        yield from (_frame(t) for t in (count - 2, count - 1))

    expected = _predict(source, tmp_path / "expected", write_pngs=True)
    for name, options in {"late": {}, "whole": {"whole": True}}.items():
        stream = late if name == "late" else _saying(*map(_frame, range(T)))
        got = _predict(source, tmp_path / name, stream, write_pngs=True, **options)
        for file in ("results.json", "tracks.jsonl", "video.json", "ids/00001.png"):
            content = (got.results.parent / file).read_bytes()
            assert content == (expected.results.parent / file).read_bytes()
        frames = zip(open_source(got.video), open_source(expected.video), strict=True)
        for one, other in frames:
            np.testing.assert_array_equal(one, other)


def test_a_line_for_each_frame_says_what_is_shown(source, tmp_path):
    written = _predict(source, tmp_path / "out", score_threshold=0.5, draw_video=False)
    lines = [json.loads(line) for line in written.tracks.read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert [line["time"] for line in lines] == [0, 0.166667, 0.333333, 0.5]
    assert [len(line["objects"]) for line in lines] == [2, 2, 2, 0]
    dog, cat = lines[1]["objects"]
    mask = dog.pop("segmentation")
    np.testing.assert_array_equal(rle.decode(mask), _mask(4, 1))
    assert dog == {"id": 4, "label": "dog", "score": 0.9, "box": [6, 40, 30, 64]}
    assert (cat["id"], cat["label"], cat["score"]) == (1, "cat", 0.6)


def test_scores_are_those_known_by_then_but_in_the_results_the_last(source, tmp_path):
    def stream(frames, *, clock=NO_CLOCK):
        for t, _ in enumerate(frames):
            probs = np.array([[0.1 * t, 0.45]], np.float32)
            tracks = LiveTracks(np.array([5], np.int32), probs)
            found = FrameResult(t, tracks, np.array([0]), [_encoded(_mask(4, t))])
            yield found

    arrays = [np.zeros((H, W, 3), np.uint8)] * 7
    written = _predict(from_arrays(arrays), tmp_path / "out", stream)
    lines = [json.loads(line) for line in written.tracks.read_text().splitlines()]
    labels = [line["objects"][0]["label"] for line in lines]
    assert labels == ["dog"] * 5 + ["cat"] * 2
    first, second = json.loads(written.results.read_text())
    assert (first["category_id"], second["category_id"]) == (3, 7)
    np.testing.assert_allclose(
        [first["score"], second["score"]], [0.6, 0.45], rtol=1e-6
    )


def test_id_images_follow_the_tracks(source, tmp_path):
    written = _predict(source, tmp_path / "out", write_pngs=True, draw_video=False)
    assert written.video is None and not (tmp_path / "out" / "video.mp4").exists()
    paths = sorted(written.ids.iterdir())
    assert [path.name for path in paths] == [f"{t:05d}.png" for t in range(T)]
    ids = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert set(np.unique(ids)) == {0, 1, 4}
    assert ids[0, 50, 20] == 4 and ids[0, 50, 30] == 1  # shared pixels: 4 is better
    assert not ids[3].any()


def test_every_format_is_written_and_nothing_else(source, tmp_path):
    for names in (("csv",), ("mot", "mots", "coco"), ("json",), tuple(FORMATS)):
        output = tmp_path / (names[0] if len(names) < 4 else "all")
        written = _predict(source, output, formats=names)
        files = {FORMATS[name].file for name in names}
        files |= {"video.json"} if "json" in names else set()
        assert {path.name for path in output.iterdir()} == files
        assert {p.name for p in written if p is not None} == files
    rows = (tmp_path / "csv/tracks.csv").read_text().splitlines()[1:]
    assert len(rows) == 2 * (T - 1)  # track 9 does not reach the threshold
    assert rows[0] == "0,0,4,dog,0.9,4,40,28,64,576"
    boxes = (tmp_path / "mot/mot.txt").read_text().splitlines()
    assert boxes[0] == "1,1,17,41,24,24,0.600000,-1,-1,-1"
    assert len((tmp_path / "mot/mots.txt").read_text().splitlines()) == 2 * (T - 1)
    coco = json.loads((tmp_path / "mot/coco.json").read_text())
    assert {one["track_id"] for one in coco["annotations"]} == {1, 4}
    results = json.loads((tmp_path / "json/results.json").read_text())
    assert [entry["track_id"] for entry in results] == [4, 1, 9]
    for names in (("gif",), ()):
        with pytest.raises(ValueError, match="--save: expected some of json,jsonl,csv"):
            _predict(source, tmp_path / "no", _never, formats=names)


def test_other_classes_and_tracks_are_in_no_file(source, tmp_path):
    written = _predict(source, tmp_path / "dogs", classes=("dog",), write_pngs=True)
    results = json.loads(written.results.read_text())
    assert [entry["track_id"] for entry in results] == [4, 9]
    lines = [json.loads(line) for line in written.tracks.read_text().splitlines()]
    assert [[one["id"] for one in line["objects"]] for line in lines[:1]] == [[4]]
    assert set(np.unique(Image.open(written.ids / "00000.png"))) == {0, 4}
    written = _predict(source, tmp_path / "one", tracks=(1,))
    (entry,) = json.loads(written.results.read_text())
    assert entry["track_id"] == 1
    with pytest.raises(ValueError, match="--classes: expected some of cat, dog, got "):
        _predict(source, tmp_path / "no", _never, classes=("cow",))
    assert "no" not in _left(tmp_path)


@pytest.mark.parametrize("whole", [False, True])
def test_the_page_has_frames_and_tracks(source, tmp_path, whole):
    options = {"formats": ("json", "html"), "whole": whole}
    written = _predict(source, tmp_path / "out", **options)
    assert written.html == tmp_path / "out" / "report.html"
    content = content_in(written.html)
    assert dict(content["summary"]) == {"tracks": 2, "classes": 2, "frames": T}
    (video,) = content["videos"]
    assert (video["frames"], len(video["pictures"])) == (T, T)
    best, second = video["predictions"]  # the third is below the threshold
    assert (best["name"], best["score"]) == ("4", 0.9)
    assert [content["classes"][one["class"]] for one in (best, second)] == [
        "dog",
        "cat",
    ]
    assert [len(one["masks"]) for one in (best, second)] == [T - 1] * 2
    np.testing.assert_array_equal(unpack(best["masks"][2], (H, W)), _mask(4, 2))
    again = _predict(source, tmp_path / "out", overwrite=True)
    assert again.html is None and not written.html.exists()


def test_the_page_has_the_class_and_score_after_the_last_frame(tmp_path):
    def stream(frames, *, clock=NO_CLOCK):
        for t, _ in enumerate(frames):
            probs = np.array([[0.1 * t, 0.45]], np.float32)
            tracks = LiveTracks(np.array([5], np.int32), probs)
            rows = np.arange(int(t < 2))  # it is seen twice, and known better later
            masks = [_encoded(_mask(4, t))] * len(rows)
            yield FrameResult(t, tracks, rows, masks, (H, W))

    arrays = [np.zeros((H, W, 3), np.uint8)] * 7
    source, formats = from_arrays(arrays), ("html",)
    written = _predict(source, tmp_path / "out", stream, formats=formats)
    content = content_in(written.html)
    (track,) = content["videos"][0]["predictions"]
    assert content["classes"][track["class"]] == "cat"
    assert track["score"] == pytest.approx(0.6)
    assert (track["start"], len(track["masks"])) == (0, 2)


def test_no_tracks_at_all(source, tmp_path):
    none = LiveTracks(np.zeros(0, np.int32), np.zeros((0, 2), np.float32))
    empty = [FrameResult(t, none, np.zeros(0, int), []) for t in range(T)]
    written = _predict(source, tmp_path / "out", _saying(*empty), write_pngs=True)
    assert json.loads(written.results.read_text()) == []
    assert len(list(open_source(written.video))) == T
    assert not np.asarray(Image.open(written.ids / "00000.png")).any()


def test_an_output_with_content_is_kept(source, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    _predict(source, output)  # empty: fine
    before = (output / "results.json").stat().st_mtime_ns
    with pytest.raises(PredictError, match="out: not empty; pass overwrite"):
        _predict(source, output, stream=_never)
    assert (output / "results.json").stat().st_mtime_ns == before
    with pytest.raises(PredictError, match="expected a folder, found a file"):
        _predict(source, output / "results.json", stream=_never)


def test_overwrite_replaces_what_predict_writes_and_nothing_else(source, tmp_path):
    output = tmp_path / "out"
    _predict(source, output, write_pngs=True)
    (output / "notes.txt").write_text("mine")
    tracks = TRACKS._replace(class_probs=TRACKS.class_probs / 2)
    stream = _saying(*(_frame(t, tracks) for t in range(T)))
    written = _predict(source, output, stream, draw_video=False, overwrite=True)
    assert _left(output) == ["notes.txt", *FILES]
    score = json.loads(written.results.read_text())[0]["score"]
    np.testing.assert_allclose(score, 0.45, rtol=1e-6)
    assert _left(tmp_path) == ["frames", "out"]


def test_a_full_disk_leaves_nothing(source, tmp_path, monkeypatch):
    def full(sink, frame, seconds):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.VideoSink, "write", full)
    with pytest.raises(OSError, match="No space left"):
        _predict(source, tmp_path / "a" / "out", write_pngs=True)
    assert _left(tmp_path) == ["frames"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("video.mp4", {}),
        ("tracks.jsonl", {"draw_video": False, "score_threshold": 0.0}),
        ("results.json", {"draw_video": False, "score_threshold": 1.0}),
    ],
)
def test_a_full_disk_names_the_file(source, tmp_path, name, options):
    output = _predict(source, tmp_path / "all", **options).results.parent
    size = (output / name).stat().st_size
    assert size == max(path.stat().st_size for path in output.iterdir())
    with files_up_to(size - 1), pytest.raises(OSError) as caught:
        _predict(source, tmp_path / "out", **options)
    assert caught.value.filename == str(tmp_path / "out" / name)
    assert _left(tmp_path) == ["all", "frames"]


def test_a_failure_while_overwriting_keeps_the_earlier_results(
    source, tmp_path, monkeypatch
):
    _predict(source, tmp_path / "out")
    before = (tmp_path / "out" / "results.json").read_bytes()
    monkeypatch.setattr(writer, "draw_frame", None)
    with pytest.raises(TypeError):
        _predict(source, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    assert _left(tmp_path) == ["frames", "out"]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_failing_model_leaves_nothing(source, tmp_path, error):
    def stream(frames, *, clock=NO_CLOCK):
        next(iter(frames))
        yield _frame(0)
        assert any(name.startswith(".out.partial-") for name in _left(tmp_path))
        raise error

    with pytest.raises(error):
        _predict(source, tmp_path / "out", stream, write_pngs=True)
    assert _left(tmp_path) == ["frames"]


def _tracks(ids, probs):
    return LiveTracks(np.array(ids, np.int32), np.array(probs, np.float32))


OTHER_SIZE = _frame(0)._replace(
    rows=np.arange(1), segmentations=[_encoded(np.ones((9, 9), bool))]
)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([_frame(0), _frame(2)], "expected frame 1 of the video, got 2"),
        ([_frame(0)], "expected 4 frames, got 1"),
        ([*map(_frame, range(T + 1))], "expected frame 4 of the video, got 4"),
        ([_frame(0, _tracks([1, 2, 3], [[0.5]] * 3))], "of 2 classes, got 1"),
        ([_frame(0, _tracks([1, 2, 3], [[0.5, np.nan]] * 3))], r"scores in 0 \.\. 1"),
        ([_frame(0, _tracks([0, 2, 3], [[0.5, 0.5]] * 3))], "expected track ids 1, 2"),
        ([OTHER_SIZE], r"masks of size \[72, 96\], got \[9, 9\]"),
    ],
)
def test_a_prediction_of_another_video_is_an_error(source, tmp_path, results, message):
    with pytest.raises(ValueError, match=message):
        _predict(source, tmp_path / "out", _saying(*results), draw_video=False)
    assert _left(tmp_path) == ["frames"]


def test_a_source_that_turns_out_empty(tmp_path):
    source = from_arrays([np.zeros((H, W, 3), np.uint8)])
    source = dataclasses.replace(source, read=lambda: iter(()), live=True)
    with pytest.raises(PredictError, match="video: has no frame"):
        _predict(source, tmp_path / "out")
    assert _left(tmp_path) == []


def test_the_seconds_of_every_part_are_measured(source, tmp_path):
    clock = Clock()
    done = _run(source, tmp_path / "out", clock=clock, write_pngs=True)
    assert set(clock.seconds) == {"writing", "drawing"}  # the rest is the stream's
    assert done.num_frames == T and done.stopped is None
    assert (clock.frames_read, clock.frames_done) == (T, T)
    best = [(track.id, track.label, round(track.score, 6)) for track in done.tracks]
    assert best == [(4, "dog", 0.9), (1, "cat", 0.6), (9, "dog", 0.2)]
    assert 0 < done.first < done.seconds
    assert sum(clock.seconds.values()) < done.seconds


def test_a_live_source_needs_a_system_that_does_not_read_whole_videos(tmp_path):
    frames = (np.full((H, W, 3), 40 + t, np.uint8) for t in range(T))
    source = from_arrays(frames, name="live")
    expected = r"live: expected a system .* clip by clip.*--config\.test\.mode=clip"
    with pytest.raises(PredictError, match=expected):
        _predict(source, tmp_path / "out", _never, whole=True)
    written = _predict(source, tmp_path / "out")
    assert len(list(open_source(written.video))) == T


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

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from tests.predict.squares import (
    FILES,
    TRACKS,
    H,
    T,
    W,
    encoded,
    frame_of,
    names_in,
    never,
    run,
    saying,
    square,
    write_squares,
)
from tests.small_disk import files_up_to
from vis_jax.predict import writer
from vis_jax.predict.sources import PredictError, from_arrays, open_source
from vis_jax.results.clock import NO_CLOCK, Clock
from vis_jax.results.frame import FrameResult, LiveTracks
from vis_jax.visualize.colours import STYLE, DrawStyle, track_colour


def test_results_have_every_track_and_say_what_they_are_of(source, tmp_path):
    written = write_squares(source, tmp_path / "a" / "out")
    results = json.loads(written.results.read_text())
    assert [entry["category_id"] for entry in results] == [7, 3, 7]
    assert [entry["video_id"] for entry in results] == [1, 1, 1]
    scores = [entry["score"] for entry in results]
    np.testing.assert_allclose(scores, [0.9, 0.6, 0.2], rtol=1e-6)
    for entry, x in zip(results, (4, 16, 60), strict=True):
        masks = rle.decode(entry["segmentations"])
        expected = [square(x, t) for t in range(T - 1)] + [np.zeros((H, W), bool)]
        np.testing.assert_array_equal(np.moveaxis(masks, 2, 0), expected)
    info = json.loads(written.info.read_text())
    (video,) = info["videos"]
    assert (video["id"], video["length"], video["height"]) == (1, T, H)
    assert video["file_names"] == ["0.png", "1.png", "2.png", "3.png"]
    assert info["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert info["track_ids"] == [4, 1, 9]


def test_the_video_shows_tracks_above_the_threshold(source, tmp_path):
    style = DrawStyle(labels=False)
    written = write_squares(source, tmp_path / "out", fps=12.5, style=style)
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
    style = DrawStyle(opacity=1.0, line_width=1.0, labels=False, boxes=True, trails=9)
    plain = write_squares(source, tmp_path / "plain", style=style._replace(trails=0))
    written = write_squares(source, tmp_path / "out", style=style)
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
                yield frame_of(count - 3)
        yield from (frame_of(t) for t in (count - 2, count - 1))

    expected = write_squares(source, tmp_path / "expected", write_pngs=True)
    for name, options in {"late": {}, "whole": {"whole": True}}.items():
        stream = late if name == "late" else saying(*map(frame_of, range(T)))
        got = write_squares(source, tmp_path / name, stream, write_pngs=True, **options)
        for file in ("results.json", "tracks.jsonl", "video.json", "ids/00001.png"):
            content = (got.results.parent / file).read_bytes()
            assert content == (expected.results.parent / file).read_bytes()
        frames = zip(open_source(got.video), open_source(expected.video), strict=True)
        for one, other in frames:  # x264 does not always write the same bits
            assert np.abs(one.astype(int) - other).max() < 25


def test_a_line_for_each_frame_says_what_is_shown(source, tmp_path):
    written = write_squares(
        source, tmp_path / "out", score_threshold=0.5, draw_video=False
    )
    lines = [json.loads(line) for line in written.tracks.read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert [line["time"] for line in lines] == [0, 0.166667, 0.333333, 0.5]
    assert [len(line["objects"]) for line in lines] == [2, 2, 2, 0]
    dog, cat = lines[1]["objects"]
    mask = dog.pop("segmentation")
    np.testing.assert_array_equal(rle.decode(mask), square(4, 1))
    assert dog == {"id": 4, "label": "dog", "score": 0.9, "box": [6, 40, 30, 64]}
    assert (cat["id"], cat["label"], cat["score"]) == (1, "cat", 0.6)


def test_scores_are_those_known_by_then_but_in_the_results_the_last(source, tmp_path):
    def stream(frames, *, clock=NO_CLOCK):
        for t, _ in enumerate(frames):
            probs = np.array([[0.1 * t, 0.45]], np.float32)
            tracks = LiveTracks(np.array([5], np.int32), probs)
            found = FrameResult(t, tracks, np.array([0]), [encoded(square(4, t))])
            yield found

    arrays = [np.zeros((H, W, 3), np.uint8)] * 7
    written = write_squares(from_arrays(arrays), tmp_path / "out", stream)
    lines = [json.loads(line) for line in written.tracks.read_text().splitlines()]
    labels = [line["objects"][0]["label"] for line in lines]
    assert labels == ["dog"] * 5 + ["cat"] * 2
    first, second = json.loads(written.results.read_text())
    assert (first["category_id"], second["category_id"]) == (3, 7)
    np.testing.assert_allclose(
        [first["score"], second["score"]], [0.6, 0.45], rtol=1e-6
    )


def test_id_images_follow_the_tracks(source, tmp_path):
    written = write_squares(source, tmp_path / "out", write_pngs=True, draw_video=False)
    assert written.video is None and not (tmp_path / "out" / "video.mp4").exists()
    paths = sorted(written.ids.iterdir())
    assert [path.name for path in paths] == [f"{t:05d}.png" for t in range(T)]
    ids = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert set(np.unique(ids)) == {0, 1, 4}
    assert ids[0, 50, 20] == 4 and ids[0, 50, 30] == 1  # shared pixels: 4 is better
    assert not ids[3].any()


def test_no_tracks_at_all(source, tmp_path):
    none = LiveTracks(np.zeros(0, np.int32), np.zeros((0, 2), np.float32))
    empty = [FrameResult(t, none, np.zeros(0, int), []) for t in range(T)]
    written = write_squares(source, tmp_path / "out", saying(*empty), write_pngs=True)
    assert json.loads(written.results.read_text()) == []
    assert len(list(open_source(written.video))) == T
    assert not np.asarray(Image.open(written.ids / "00000.png")).any()


def test_an_output_with_content_is_kept(source, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    write_squares(source, output)  # empty: fine
    before = (output / "results.json").stat().st_mtime_ns
    with pytest.raises(PredictError, match="out: not empty; pass overwrite"):
        write_squares(source, output, stream=never)
    assert (output / "results.json").stat().st_mtime_ns == before
    with pytest.raises(PredictError, match="expected a folder, found a file"):
        write_squares(source, output / "results.json", stream=never)


def test_overwrite_replaces_what_predict_writes_and_nothing_else(source, tmp_path):
    output = tmp_path / "out"
    write_squares(source, output, write_pngs=True)
    (output / "notes.txt").write_text("mine")
    tracks = TRACKS._replace(class_probs=TRACKS.class_probs / 2)
    stream = saying(*(frame_of(t, tracks) for t in range(T)))
    written = write_squares(source, output, stream, draw_video=False, overwrite=True)
    assert names_in(output) == ["notes.txt", *FILES]
    score = json.loads(written.results.read_text())[0]["score"]
    np.testing.assert_allclose(score, 0.45, rtol=1e-6)
    assert names_in(tmp_path) == ["frames", "out"]


def test_a_full_disk_leaves_nothing(source, tmp_path, monkeypatch):
    def full(sink, frame, seconds):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.VideoSink, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_squares(source, tmp_path / "a" / "out", write_pngs=True)
    assert names_in(tmp_path) == ["frames"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("video.mp4", {}),
        ("tracks.jsonl", {"draw_video": False, "score_threshold": 0.0}),
        ("results.json", {"draw_video": False, "score_threshold": 1.0}),
    ],
)
def test_a_full_disk_names_the_file(source, tmp_path, name, options):
    output = write_squares(source, tmp_path / "all", **options).results.parent
    size = (output / name).stat().st_size
    assert size == max(path.stat().st_size for path in output.iterdir())
    with files_up_to(size - 1), pytest.raises(OSError) as caught:
        write_squares(source, tmp_path / "out", **options)
    assert caught.value.filename == str(tmp_path / "out" / name)
    assert names_in(tmp_path) == ["all", "frames"]


def test_a_failure_while_overwriting_keeps_the_earlier_results(
    source, tmp_path, monkeypatch
):
    write_squares(source, tmp_path / "out")
    before = (tmp_path / "out" / "results.json").read_bytes()
    monkeypatch.setattr(writer, "draw_frame", None)
    with pytest.raises(TypeError):
        write_squares(source, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    assert names_in(tmp_path) == ["frames", "out"]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_failing_model_leaves_nothing(source, tmp_path, error):
    def stream(frames, *, clock=NO_CLOCK):
        next(iter(frames))
        yield frame_of(0)
        assert any(name.startswith(".out.partial-") for name in names_in(tmp_path))
        raise error

    with pytest.raises(error):
        write_squares(source, tmp_path / "out", stream, write_pngs=True)
    assert names_in(tmp_path) == ["frames"]


def _tracks(ids, probs):
    return LiveTracks(np.array(ids, np.int32), np.array(probs, np.float32))


OTHER_SIZE = frame_of(0)._replace(
    rows=np.arange(1), segmentations=[encoded(np.ones((9, 9), bool))]
)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([frame_of(0), frame_of(2)], "expected frame 1 of the video, got 2"),
        ([frame_of(0)], "expected 4 frames, got 1"),
        ([*map(frame_of, range(T + 1))], "expected frame 4 of the video, got 4"),
        ([frame_of(0, _tracks([1, 2, 3], [[0.5]] * 3))], "of 2 classes, got 1"),
        ([frame_of(0, _tracks([1, 2, 3], [[0.5, np.nan]] * 3))], r"scores in 0 \.\. 1"),
        (
            [frame_of(0, _tracks([0, 2, 3], [[0.5, 0.5]] * 3))],
            "expected track ids 1, 2",
        ),
        ([OTHER_SIZE], r"masks of size \[72, 96\], got \[9, 9\]"),
    ],
)
def test_a_prediction_of_another_video_is_an_error(source, tmp_path, results, message):
    with pytest.raises(ValueError, match=message):
        write_squares(source, tmp_path / "out", saying(*results), draw_video=False)
    assert names_in(tmp_path) == ["frames"]


def test_a_source_that_turns_out_empty(tmp_path):
    source = from_arrays([np.zeros((H, W, 3), np.uint8)])
    source = dataclasses.replace(source, read=lambda: iter(()), live=True)
    with pytest.raises(PredictError, match="video: has no frame"):
        write_squares(source, tmp_path / "out")
    assert names_in(tmp_path) == []


def test_the_seconds_of_every_part_are_measured(source, tmp_path):
    clock = Clock()
    done = run(source, tmp_path / "out", clock=clock, write_pngs=True)
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
        write_squares(source, tmp_path / "out", never, whole=True)
    written = write_squares(source, tmp_path / "out")
    assert len(list(open_source(written.video))) == T


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf")])
def test_rates_and_thresholds_out_of_range(source, tmp_path, fps):
    with pytest.raises(ValueError, match="fps: expected"):
        write_squares(source, tmp_path / "out", never, fps=fps)
    with pytest.raises(ValueError, match="score_threshold: expected"):
        write_squares(source, tmp_path / "out", never, score_threshold=1.5)


def test_output_is_readable_by_others_as_any_new_folder_is(source, tmp_path):
    write_squares(source, tmp_path / "out")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode

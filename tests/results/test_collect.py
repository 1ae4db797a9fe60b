import gc
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.results.scenes import SIZE, box, frame, rle, video
from tests.small_disk import files_up_to
from vis_jax.results.collect import Collector
from vis_jax.results.frame import LiveTracks

EMPTY = rle(np.zeros(SIZE, bool))


def _tracks(numbers, probs, lost=0):
    return LiveTracks(np.array(numbers, np.int32), np.array(probs, np.float32), lost)


def _areas(segmentations):
    return [int(coco_mask.area(one)) for one in segmentations]


def _collected(frames, top, count):
    collector = Collector(top)
    for one in frames:
        collector.add(one)
    return collector.result(count, SIZE)


def test_a_track_keeps_its_masks_and_its_last_classes():
    later = _tracks([7, 8], [[0.4, 0.3], [0.9, 0.0]])
    frames = [
        frame(0, _tracks([7], [[0.2, 0.1]]), {}),
        frame(1, _tracks([7], [[0.3, 0.1]]), {0: box(0, 0, 8, 2)}),
        frame(2, later, {1: box(0, 0, 1, 1), 0: box(0, 0, 8, 3)}),
    ]
    found = _collected(frames, 3, 4)
    assert found.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(found.scores, np.array([0.9, 0.4, 0.3], np.float32))
    assert found.track_ids.tolist() == [8, 7, 7]  # two classes of one track
    areas = [_areas(one) for one in found.segmentations]
    assert areas == [[0, 0, 1, 0], [0, 16, 24, 0], [0, 16, 24, 0]]
    assert all(one["size"] == list(SIZE) for one in found.segmentations[0])
    assert (found.height, found.width, found.num_frames) == (*SIZE, 4)


def _plain(frames, top, count):
    """The same rules with everything in memory: no track is ever dropped."""
    live, ended = {}, []
    for one in frames:
        numbers = one.tracks.ids.tolist()
        for number in sorted(live.keys() - set(numbers)):
            ended.append((number, *live.pop(number)))
        ended.sort(key=lambda track: -track[1].max())
        for number, probs in zip(numbers, one.tracks.class_probs, strict=True):
            live[number] = (probs, live.get(number, (None, {}))[1])
        for number, mask in zip(one.ids.tolist(), one.segmentations, strict=True):
            live[number][1][one.frame] = mask
    tracks = [*((number, *track) for number, track in live.items()), *ended]
    pairs = [
        (-prob, i, label)
        for i, (_, probs, _) in enumerate(tracks)
        for label, prob in enumerate(probs.tolist())
    ]
    best = [pair for pair in sorted(pairs)[:top] if pair[0] < 0]
    masks = [[tracks[i][2].get(t, EMPTY) for t in range(count)] for _, i, _ in best]
    rows = [(label, -prob, tracks[i][0]) for prob, i, label in best]
    return rows, masks


@pytest.mark.parametrize("clip", [1, 4])
@pytest.mark.parametrize("top", [1, 5, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_only_the_best_tracks_are_kept_and_they_are_the_right_ones(seed, top, clip):
    """Probabilities are eighths, so that there are many ties."""
    frames = list(video(seed, 30, clip))
    rows, masks = _plain(frames, top, 31)
    collector = Collector(top)
    for one in frames:
        collector.add(one)
        assert len(collector._ended) <= top
    found = collector.result(31, SIZE)
    fields = found.labels.tolist(), found.scores.tolist(), found.track_ids.tolist()
    assert list(zip(*fields, strict=True)) == rows
    assert [list(one) for one in found.segmentations] == masks
    assert collector.lost == frames[-1].tracks.lost


@pytest.mark.parametrize("count", [255, 256, 257, 700, 1024])
def test_long_tracks_are_found_frame_by_frame(count):
    """Beyond a block of 256 masks, what says where they are is on disk, too."""
    tracks = _tracks([1], [[1.0]])
    rng = np.random.default_rng(count)
    there = rng.random(count) < 0.9
    masks = [rng.random(SIZE) < 0.5 for _ in range(count)]
    frames = [frame(t, tracks, {0: masks[t]} if there[t] else {}) for t in range(count)]
    (found,) = _collected(frames, 3, count + 5).segmentations
    expected = [rle(masks[t]) if there[t] else EMPTY for t in range(count)]
    assert list(found) == expected + [EMPTY] * 5
    for t in rng.permutation(count)[:100].tolist():
        assert found[t] == expected[t]


def test_memory_does_not_grow_with_the_frames():
    tracks, masks = _tracks([1, 2], [[1.0], [0.5]]), {0: box(0, 0, 3, 3)}
    one, sizes = frame(0, tracks, masks | {1: box(1, 1, 2, 2)}), []
    collector = Collector(3)
    tracemalloc.start()
    for t in range(6_001):
        collector.add(one._replace(frame=t))
        if t % 3_000 == 0:
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[2] - sizes[1] < 10_000  # bytes


def test_no_tracks_are_an_empty_result():
    found = Collector(3).result(2, SIZE)
    assert (len(found.labels), len(found.scores), found.segmentations) == (0, 0, [])
    assert found.masks(1).shape == (0, *SIZE)


def test_the_masks_of_a_track_are_a_sequence():
    frames = list(video(0, 12))
    masks = _collected(frames, 1, 12).segmentations[0]
    everything = list(masks)
    assert (len(masks), len(everything)) == (12, 12)
    assert masks[-1] == everything[11] and masks[2:9:3] == everything[2:9:3]
    with pytest.raises(IndexError):
        masks[12]


def test_the_result_so_far_can_be_asked_for_at_any_time():
    frames, collector = list(video(1, 20)), Collector(6)
    for one in frames[:8]:
        collector.add(one)
    early = collector.result(8, SIZE)
    before = [list(masks) for masks in early.segmentations]
    for one in frames[8:]:
        collector.add(one)
    assert [list(masks) for masks in early.segmentations] == before
    late = collector.result(20, SIZE)
    assert late.scores.tolist() == _collected(frames, 6, 20).scores.tolist()


def test_the_temporary_file_has_no_name_and_ends_with_its_result(tmp_path):
    gc.collect()  # files that earlier tests left open
    opened = len(os.listdir("/proc/self/fd"))
    collector = Collector(3, tmp_path)
    for one in video(0, 5):
        collector.add(one)
    found = collector.result(5, SIZE)
    assert not list(tmp_path.iterdir())
    del collector
    gc.collect()
    assert len(found.segmentations[0]) == len(list(found.segmentations[0]))
    assert len(os.listdir("/proc/self/fd")) == opened + 1
    del found
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_full_disk_names_the_file(tmp_path):
    collector, frames = Collector(3, tmp_path), video(0, 5000)
    with files_up_to(400), pytest.raises(OSError) as caught:
        for one in frames:
            collector.add(one)
    path = Path(caught.value.filename)
    assert (path.parent, path.suffix) == (tmp_path, ".masks")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Collector(3, tmp_path / "nowhere")


def test_frames_out_of_order_and_masks_of_other_sizes():
    tracks = _tracks([1], [[1.0]])
    collector = Collector(3)
    collector.add(frame(4, tracks, {0: box(0, 0, 2, 2)}))
    with pytest.raises(ValueError, match="frame: expected 5 or later, got 4"):
        collector.add(frame(4, tracks, {}))
    other = frame(5, tracks, {})._replace(
        rows=np.array([0]), segmentations=[rle(np.ones((3, 3), bool))]
    )
    with pytest.raises(ValueError, match=r"frame 5: .* size \[6, 8\], got \[3, 3\]"):
        collector.add(other)
    with pytest.raises(ValueError, match=r"size \[9, 9\], got \[6, 8\]"):
        collector.result(9, (9, 9))

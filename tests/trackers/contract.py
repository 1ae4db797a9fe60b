"""Checks the contract of trackers.

A tracker under test is a function (frames, **how) -> identities of the detections.
"""

from collections.abc import Callable

import jax
import numpy as np

from tests.compiled import compiled
from tests.trackers.frames import Seen, clip_of, ids_of, pack, random_frames, square
from vis_jax.trackers.tracker import Tracker

SIZE = 4  # detections per frame
FRAMES = 8
SLOTS = 6


def runner(tracker: Tracker) -> Callable:
    """Returns a compiled function (frames, seed of the padding) -> identities, lost."""
    start, track = compiled(tracker.start), compiled(tracker.track)

    def run(frames: list[list[Seen]], seed: int | None = None):
        missing = FRAMES - len(frames)  # fixed length, to compile once
        frames = [*frames, *[[]] * missing]
        detections, clip = pack(frames, SIZE, seed), clip_of(FRAMES)
        state = start(clip, detections)
        _, tracked = track({}, state, clip, detections)
        ids = ids_of(tracked.track_ids, frames)
        return ids[: FRAMES - missing], int(tracked.lost)

    return run


def check_separated_objects(run: Callable) -> None:
    """Checks that distant objects keep their identities, even through a gap."""
    codes = np.eye(3) * 4
    frames = [
        [
            Seen(square(100.0 * i + t), label=i, embed=tuple(codes[i]))
            for i in np.random.default_rng(t).permutation(3)
            if not (i == 1 and t in (2, 3))  # hidden for two frames
        ]
        for t in range(FRAMES)
    ]
    ids, lost = run(frames)
    assert lost == 0
    names: dict[int, set] = {}
    for frame, found in zip(frames, ids, strict=True):
        for seen, track_id in zip(frame, found, strict=True):
            names.setdefault(seen.label, set()).add(track_id)
    assert sorted(map(sorted, names.values())) == [[1], [2], [3]]


def check_padding(run: Callable) -> None:
    """Checks that the content of empty slots has no effect."""
    for seed in range(5):
        frames = random_frames(np.random.default_rng(seed), FRAMES, 3)
        assert run(frames) == run(frames, seed)


def check_order(run: Callable) -> None:
    """Checks that the order of detections affects only the ids of tracks."""
    compared = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        frames = random_frames(rng, 4, 3)
        orders = [rng.permutation(len(frame)) for frame in frames]
        mixed = [
            [frame[i] for i in order]
            for frame, order in zip(frames, orders, strict=True)
        ]
        (ids, lost), (mixed_ids, mixed_lost) = run(frames), run(mixed)
        if lost or mixed_lost:  # the order determines which ones are lost
            continue
        compared += 1
        before = [
            x for row, o in zip(ids, orders, strict=True) for x in np.take(row, o)
        ]
        after = [x for row in mixed_ids for x in row]
        pairs = set(zip(before, after, strict=True))
        assert len(pairs) == len(set(before)) == len(set(after))
        assert all((a == 0) == (b == 0) for a, b in pairs)
    assert compared > 3


def check_frame_by_frame(tracker: Tracker) -> None:
    """Checks equal results frame by frame and at once; the last frame is padding."""
    frames = random_frames(np.random.default_rng(3), FRAMES, SIZE)
    detections, clip = pack(frames, SIZE), clip_of(FRAMES)
    clip.frame_valid[-1] = False
    state = compiled(tracker.start)(clip, detections)
    track = compiled(tracker.track)  # once for all frames, and once for one
    last, at_once = track({}, state, clip, detections)
    assert not at_once.track_ids[-1].any()
    rows = []
    for t in range(FRAMES):
        part = jax.tree.map(lambda x, t=t: x[t : t + 1], detections)
        frame = clip_of(1)._replace(frame_valid=clip.frame_valid[t : t + 1])
        state, tracked = track({}, state, frame, part)
        rows.append(tracked.track_ids[0])
    np.testing.assert_array_equal(rows, at_once.track_ids)
    assert int(tracked.lost) == int(at_once.lost)
    for one_by_one, together in zip(
        jax.tree.leaves(state), jax.tree.leaves(last), strict=True
    ):
        np.testing.assert_array_equal(one_by_one, together)

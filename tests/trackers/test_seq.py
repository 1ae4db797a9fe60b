import itertools

import numpy as np

from tests.compiled import compiled
from tests.trackers.contract import (
    FRAMES,
    SIZE,
    SLOTS,
    check_order,
    check_padding,
    runner,
)
from tests.trackers.frames import Seen, clip_of, iou, pack, random_frames, square
from vis_jax.trackers.seq import Settings, best_chain, build

PAPER, SHORT = Settings(), Settings(min_length=2)
run_short = runner(build(SHORT, SLOTS))
find = compiled(best_chain)


def every_chain(nodes, links):
    """Score of each chain, which is a tuple of (frame, detection)."""
    frames, count = nodes.shape
    scores = {}
    for start in range(frames):
        for length in range(1, frames - start + 1):
            for chosen in itertools.product(range(count), repeat=length):
                chain = tuple(zip(range(start, frames), chosen, strict=False))
                score = sum(nodes[at] for at in chain)
                for (t, i), (_, j) in itertools.pairwise(chain):
                    score += links[t, i, j]
                if score > -np.inf:
                    scores[chain] = score
    return scores


def rule(chain):
    """The first of equal chains: its end, then its detections from the end back."""
    return chain[-1][0], [i for _, i in reversed(chain)]


def random_graph(rng, whole: bool):
    """Five frames of three detections; sums of whole numbers are often equal."""
    nodes, links = rng.uniform(-3, 0, (5, 3)), rng.uniform(-2, 3, (4, 3, 3))
    if whole:
        nodes, links = nodes.round(), links.round()
    nodes = np.where(rng.random(nodes.shape) < 0.7, nodes, -np.inf)
    links = np.where(rng.random(links.shape) < 0.7, links, -np.inf)
    return nodes.astype(np.float32), links.astype(np.float32)


def test_the_best_chain_is_the_best_of_all():
    ties, lengths = 0, set()
    for seed in range(60):
        nodes, links = random_graph(np.random.default_rng(seed), whole=seed % 2 == 0)
        chain = find(nodes, links)
        scores = every_chain(nodes.astype(np.float64), links.astype(np.float64))
        best = max(scores.values())
        equal = [c for c, score in scores.items() if score > best - 1e-5]
        chosen = tuple(map(tuple, np.argwhere(chain.chosen).tolist()))
        assert chosen == min(equal, key=rule), seed
        assert int(chain.length) == len(chosen)
        np.testing.assert_allclose(chain.score, best, rtol=1e-5, atol=1e-5)
        ties += len(equal) > 1
        lengths.add(len(chosen))
    assert ties > 10
    assert lengths == {1, 2, 3, 4, 5}


def test_without_detections_there_is_no_chain():
    chain = find(np.full((5, 3), -np.inf), np.zeros((4, 3, 3)))
    assert (int(chain.length), bool(chain.chosen.any())) == (0, False)


def literal(frames):
    """Chains of all that is left, the best first, while two frames long."""
    nodes = np.full((len(frames), 3), -np.inf)
    links = np.full((len(frames) - 1, 3, 3), -np.inf)
    for t, frame in enumerate(frames):
        for i, seen in enumerate(frame):
            nodes[t, i] = np.log(seen.score)
            for j, other in enumerate(frames[t + 1] if t + 1 < len(frames) else []):
                overlap = iou(seen.box, other.box)
                if overlap >= 0.3:
                    links[t, i, j] = 2 * overlap + 10 * (seen.label == other.label)
    ids = np.zeros(nodes.shape, int)
    while scores := every_chain(nodes, links):
        best = max(scores, key=scores.get)
        if len(best) < SHORT.min_length:
            break
        track = ids.max() + 1
        for at in best:
            nodes[at], ids[at] = -np.inf, track
    return [row[: len(frame)].tolist() for row, frame in zip(ids, frames, strict=True)]


def test_tracks_are_the_best_chains_one_after_the_other():
    tracks = set()
    for seed in range(25):
        frames = random_frames(np.random.default_rng(seed), 5, 3)
        expected = literal(frames)
        assert run_short(frames) == (expected, 0), seed
        tracks.add(max(x for row in expected for x in row))
    assert len(tracks) > 2


def test_seven_frames_are_too_few_eight_are_a_track():
    """Three objects far apart; one is not there in the first frame."""
    run = runner(build(PAPER, SLOTS))
    frames = []
    for t in range(FRAMES):
        order = np.random.default_rng(t).permutation(3)
        frames.append(
            [Seen(square(100.0 * i + t), label=int(i)) for i in order if t or i]
        )
    ids, lost = run(frames)
    names = {(s.label, x) for f, row in zip(frames, ids, strict=True)
             for s, x in zip(f, row, strict=True)}  # fmt: skip
    assert lost == 0
    assert len(names) == 3
    assert (0, 0) in names
    assert {x for _, x in names} == {0, 1, 2}


def test_tracks_beyond_the_slots_are_counted():
    """Chains with equal scores are ordered by their end."""
    frames = [
        [Seen(square(100.0 * i + 1000 * (t // 2)), label=i % 3) for i in range(4)]
        for t in range(4)
    ]
    assert run_short(frames) == ([[1, 2, 3, 4]] * 2 + [[5, 6, 0, 0]] * 2, 2)


def test_one_frame_has_tracks_of_one_frame():
    tracker = build(Settings(min_length=1), SLOTS)
    assert tracker.offline
    found, clip = (
        pack([[Seen(square(0)), Seen(square(0), score=0.95)]], SIZE),
        clip_of(1),
    )
    state = tracker.start(clip, found)
    _, tracked = compiled(tracker.track)({}, state, clip, found)
    assert tracked.track_ids.tolist() == [[2, 1, 0, 0]]


def test_padding_changes_nothing():
    check_padding(run_short)
    # Nor do detections in frames that are padding.
    frames = random_frames(np.random.default_rng(4), FRAMES, 3)
    clip = clip_of(FRAMES)
    clip.frame_valid[5:] = False
    _, tracked = compiled(build(SHORT, SLOTS).track)({}, (), clip, pack(frames, SIZE))
    expected, _ = run_short(frames[:5])
    assert any(map(any, expected))
    assert not tracked.track_ids[5:].any()
    for row, ids in zip(tracked.track_ids, expected, strict=False):
        assert row[: len(ids)].tolist() == ids


def test_the_order_changes_names_alone():
    check_order(run_short)

import functools

import numpy as np
import pytest

from tests.trackers.contract import (
    FRAMES,
    SIZE,
    SLOTS,
    check_frame_by_frame,
    check_order,
    check_padding,
    check_separated_objects,
    runner,
)
from tests.trackers.frames import Seen, clip_of, iou, pack, random_frames, square
from vis_jax.trackers.mask_track import Settings, build

RELEASED = Settings()
OTHER = Settings(
    detection=0.5, iou=3.0, category=2.0, category_of_new=False, refresh_labels=True
)


@functools.cache
def run_of(settings):
    return runner(build(settings, SLOTS))


run = run_of(RELEASED)
ALIKE, OPPOSITE = (4.0, 0, 0), (-4.0, 0, 0)  # products of 16 and -16 with each other


def test_a_detection_that_looks_alike_continues_the_track():
    there = Seen(square(0), embed=ALIKE)
    far = Seen(square(50), embed=ALIKE)
    assert run([[there], [far]]) == ([[1], [1]], 0)


def test_one_that_looks_unlike_is_new_even_at_the_same_place():
    # v(1) = -16 + 2 + 10 and v(0) = 0 + 10, but for ln(score).
    frames = [[Seen(square(0), embed=ALIKE)], [Seen(square(0), embed=OPPOSITE)]]
    assert run(frames) == ([[1], [2]], 0)


@pytest.mark.parametrize(("product", "ids"), [(9.0, [1]), (7.0, [2])])
def test_another_class_needs_ten_nats_less_two_for_the_box(product, ids):
    """A dot product above 10 - 2 wins over the new object of the right class."""
    embed = (product**0.5, 0, 0)
    frames = [[Seen(square(0), label, embed=embed)] for label in (0, 1)]
    assert run(frames)[0][1] == ids


def test_the_best_of_a_conflict_keeps_the_track_and_the_other_is_not_shown():
    weak = Seen(square(0), score=0.5, embed=ALIKE)
    strong = Seen(square(0), score=0.6, embed=ALIKE)
    assert run([[weak], [weak, strong]]) == ([[1], [0, 1]], 0)
    assert run([[weak], [strong, weak]]) == ([[1], [1, 0]], 0)
    assert run([[weak], [strong, strong]]) == ([[1], [1, 0]], 0)  # the first of equals


def test_the_memory_takes_the_new_look_and_keeps_the_label_of_birth():
    turned = (4 * 0.5**0.5, 4 * 0.5**0.5, 0)
    frames = [
        [Seen(square(0), 0, embed=ALIKE)],
        [Seen(square(0), 1, embed=turned)],  # 11.3 + 2 against 10
        # 11.3 with the turned look, 0 with the first one; the class is that of birth.
        [Seen(square(50), 0, embed=(0, 4, 0))],
    ]
    assert run(frames)[0] == [[1], [1], [1]]
    frames[2] = [Seen(square(50), 1, embed=(0, 4 * 0.7, 0))]  # 7.9 against 10
    assert run(frames)[0] == [[1], [1], [2]]
    refreshed = run_of(Settings(refresh_labels=True))
    assert refreshed(frames)[0] == [[1], [1], [1]]


def test_objects_without_a_slot_are_counted():
    """New objects of one frame do not compete, as they are not in the memory yet."""
    one, other = Seen(square(0), embed=ALIKE), Seen(square(0), embed=OPPOSITE)
    ids, lost = run([[one] * 4, [other] * 3, [other, one]])
    assert ids == [[1, 2, 3, 4], [5, 6, 0], [5, 1]]
    assert lost == 1


def test_embeddings_are_needed():
    detections = pack([[]] * FRAMES, SIZE)
    blind = detections._replace(embeds=detections.embeds[..., :0])
    with pytest.raises(ValueError, match="test.trackers.mask_track: expected a detec"):
        build(RELEASED, SLOTS).start(clip_of(FRAMES), blind)


def literal(frames, settings):
    """The rule of the released code, one detection after the other."""
    embeds, boxes, labels, result, lost = [], [], [], [], 0
    for frame in frames:
        v = [_values(seen, embeds, boxes, labels, settings) for seen in frame]
        best, ids = {}, [0] * len(frame)
        for i, seen in enumerate(frame):
            n = int(np.argmax(v[i]))
            if n == 0:
                if len(boxes) == SLOTS:
                    lost += 1
                    continue
                embeds.append(seen.embed)
                boxes.append(seen.box)
                labels.append(seen.label)
                ids[i] = len(boxes)
            elif v[i][n] > best.get(n, -100.0):
                best[n] = v[i][n]
                ids = [0 if x == n else x for x in ids]  # the one before has lost it
                ids[i] = n
                embeds[n - 1], boxes[n - 1] = seen.embed, seen.box
                if settings.refresh_labels:
                    labels[n - 1] = seen.label
        result.append(ids)
    return result, lost


def _values(seen, embeds, boxes, labels, settings):
    logits = np.array([0.0, *(np.dot(seen.embed, other) for other in embeds)])
    log_probs = logits - np.log(np.exp(logits).sum())
    cues = [settings.category if settings.category_of_new else 0.0]
    for box, label in zip(boxes, labels, strict=True):
        same = settings.category * (seen.label == label)
        cues.append(settings.iou * iou(seen.box, box) + same)
    return log_probs + settings.detection * np.log(seen.score) + np.array(cues)


@pytest.mark.parametrize("settings", [RELEASED, OTHER], ids=["released", "other"])
def test_matches_the_loop_of_the_released_code(settings):
    names, losses = set(), 0
    for seed in range(40):
        frames = random_frames(np.random.default_rng(seed), FRAMES, SIZE)
        expected = literal(frames, settings)
        assert run_of(settings)(frames) == expected, seed
        names |= {x for row in expected[0] for x in row}
        losses += expected[1]
    assert names == set(range(SLOTS + 1))
    assert (losses > 0) == settings.category_of_new  # the other rule begins few tracks


def test_separated_objects_keep_their_names():
    check_separated_objects(run)


def test_padding_changes_nothing():
    check_padding(run)


def test_the_order_changes_names_alone():
    check_order(run)


def test_frame_by_frame_is_all_at_once():
    check_frame_by_frame(build(RELEASED, SLOTS))

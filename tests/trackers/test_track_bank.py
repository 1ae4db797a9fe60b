import jax
import numpy as np
import pytest

from tests.compiled import compiled
from tests.trackers.frames import Seen, pack, square
from vis_jax.trackers.track_bank import (
    cue_scores,
    empty_bank,
    in_use,
    log_scores,
    resolve,
    write_bank,
)

winners = compiled(resolve)
empty = compiled(empty_bank, static_argnums=(0, 1))
used = compiled(in_use)


def test_of_each_slot_the_best_and_of_equals_the_first():
    values = np.array([1.0, 3.0, 3.0, 2.0, 9.0, -5.0])
    slots = np.array([0, 0, 0, 1, 1, 2])
    wanted = np.array([True, True, True, True, False, True])
    np.testing.assert_array_equal(
        winners(values, slots, wanted), [False, True, False, True, False, True]
    )


def test_what_is_not_wanted_may_hold_anything():
    values = np.array([np.nan, 1.0, np.inf, 0.5])
    slots = np.array([0, 0, 0, 0])
    wanted = np.array([False, True, False, True])
    np.testing.assert_array_equal(
        winners(values, slots, wanted), [False, True, False, False]
    )


WEIGHTS = ("detection", "iou", "category")


def test_cues_add_up():
    value = compiled(cue_scores, static_argnames=WEIGHTS)(
        np.array([0.5, 0.0]),
        np.array([[0.25, 1.0]] * 2),
        np.array([[True, False]] * 2),
        detection=1.0,
        iou=2.0,
        category=10.0,
    )
    np.testing.assert_allclose(value[0], np.log(0.5) + [10.5, 2.0], rtol=1e-6)
    assert np.isfinite(value).all()
    np.testing.assert_allclose(compiled(log_scores)(np.array([1.0])), [0.0])


FOUND = jax.tree.map(
    lambda x: x[0],
    pack([[Seen(square(10.0 * i), i, embed=(i + 1.0, 0, 0)) for i in range(3)]], 4),
)

write_compiled = compiled(write_bank, static_argnames="refresh_labels")


def write(bank, slots, kept, new, refresh=False):
    return write_compiled(
        bank,
        FOUND,
        np.array(slots),
        kept=np.array(kept),
        new=np.array(new),
        refresh_labels=refresh,
    )


NONE, FIRST = [False] * 4, [True, False, False, False]


@pytest.mark.parametrize("refresh", [False, True])
def test_tracks_are_numbered_in_order_and_continued(refresh):
    bank, ids = write(empty(3, 3), [0] * 4, NONE, [False, True, True, False])
    np.testing.assert_array_equal(ids, [0, 1, 2, 0])
    np.testing.assert_array_equal(used(bank), [True, True, False])
    np.testing.assert_array_equal(bank.labels, [1, 2, 0])
    bank, ids = write(bank, [1, 7, 7, 7], FIRST, NONE, refresh)
    np.testing.assert_array_equal(ids, [2, 0, 0, 0])
    np.testing.assert_array_equal(bank.embeds[:, 0], [2, 1, 0])
    np.testing.assert_array_equal(bank.boxes[:, 0], [10, 0, 0])
    np.testing.assert_array_equal(bank.labels, [1, 0, 0] if refresh else [1, 2, 0])
    assert (int(bank.tracks), int(bank.lost)) == (2, 0)


def test_a_full_bank_counts_what_it_loses_and_stays_as_it_is():
    bank, ids = write(empty(2, 3), [0] * 4, NONE, [True, True, True, False])
    np.testing.assert_array_equal(ids, [1, 2, 0, 0])
    full, ids = write(bank, [0] * 4, FIRST, [False, True, True, False])
    np.testing.assert_array_equal(ids, [1, 0, 0, 0])
    assert (int(full.tracks), int(full.lost)) == (2, 3)
    np.testing.assert_array_equal(full.boxes, bank.boxes)
    np.testing.assert_array_equal(full.embeds, bank.embeds)

import functools

import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.detectors.fcos import STRIDES, places_of
from vis_jax.detectors.fcos_targets import TargetRule, dense_targets, mask_centroids
from vis_jax.losses.multibox import ImageObjects

CANVAS = (96, 160)
CELLS = ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2))
RULE = TargetRule(1.5, (16.0, 32.0, 64.0, 128.0))
CLASSES = 7

targets_of = compiled(dense_targets, static_argnames=("rule", "classes"))
places = compiled(functools.partial(places_of, CELLS))()


def objects_of(boxes, masks=None, labels=None, valid=None, crowd=None):
    count = len(boxes)
    boxes = np.array(boxes, np.float32)
    if masks is None:
        masks = np.zeros((count, *CANVAS), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = True
    return ImageObjects(
        boxes,
        np.arange(count, dtype=np.int32) if labels is None else labels,
        masks,
        np.ones(count, bool) if valid is None else valid,
        np.zeros(count, bool) if crowd is None else crowd,
    )


def found(objects, rule=RULE):
    return targets_of(objects, places, rule=rule, classes=CLASSES)


def literal(objects, rule):
    """Index of the object of every location, in float64; None for the background."""
    ranges = [-1.0, *rule.ranges, 1e8]
    chosen, distances = [], []
    for level, ((height, width), stride) in enumerate(zip(CELLS, STRIDES, strict=True)):
        for row, column in np.ndindex(height, width):
            x, y = column * stride + stride // 2, row * stride + stride // 2
            best = None
            for m in range(len(objects.boxes)):
                if not objects.valid[m] or objects.crowd[m]:
                    continue
                x1, y1, x2, y2 = objects.boxes[m].astype(np.float64)
                rows, columns = np.nonzero(objects.masks[m])
                cx, cy = (columns.mean(), rows.mean()) if len(rows) else (0.0, 0.0)
                reach = rule.radius * stride
                sides = (x - x1, y - y1, x2 - x, y2 - y)
                inside = max(x1, cx - reach) < x < min(x2, cx + reach)
                inside &= max(y1, cy - reach) < y < min(y2, cy + reach)
                inside &= ranges[level] <= max(sides) <= ranges[level + 1]
                area = (x2 - x1) * (y2 - y1)
                if inside and (best is None or area < best[0]):
                    best = (area, m, sides)
            chosen.append(best and best[1])
            distances.append(best and best[2])
    return chosen, distances


@pytest.mark.parametrize("seed", range(4))
def test_targets_are_those_written_out(seed):
    rng = np.random.default_rng(seed)
    count = 15
    low = rng.uniform(0, (130, 70), (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 90, low.shape)], -1)
    boxes[3], boxes[5] = boxes[2], (0, 0, 160, 96)
    masks = rng.random((count, *CANVAS)) < 5e-4
    for mask, box in zip(masks, boxes, strict=True):
        x1, y1, x2, y2 = box.astype(int)
        mask[y1 : y2 - (y2 - y1) // 2, x1:x2] = True
    masks[8] = False
    objects = objects_of(
        boxes, masks, rng.integers(0, CLASSES, count).astype(np.int32),
        np.arange(count) != 4, np.arange(count) == 6,
    )  # fmt: skip
    ours = found(objects)
    chosen, distances = literal(objects, RULE)
    positive = np.array([m is not None for m in chosen])
    assert 10 < positive.sum() < positive.size
    assert {4, 6}.isdisjoint(chosen)
    np.testing.assert_array_equal(ours.positive, positive)
    which = np.array([m for m in chosen if m is not None])
    np.testing.assert_array_equal(ours.truth[positive], which)
    np.testing.assert_array_equal(ours.labels[positive], objects.labels[which])
    assert (ours.labels[~positive] == CLASSES).all()
    wanted = [x for x in distances if x is not None]
    np.testing.assert_allclose(ours.distances[positive], wanted, rtol=1e-5, atol=1e-5)


def test_the_region_is_around_the_mask_not_the_box():
    """An L along the left and the lower border of its box."""
    mask = np.zeros((1, *CANVAS), bool)
    mask[0, 8:88, 8:16] = mask[0, 80:88, 8:88] = True
    ours = found(
        objects_of([[8, 8, 88, 88]], mask), RULE._replace(ranges=(1e3, 2e3, 3e3, 4e3))
    )
    at = places.locations[ours.positive]
    centre = compiled(mask_centroids)(mask)[0]
    rows, columns = np.nonzero(mask[0])
    np.testing.assert_allclose(centre, [columns.mean(), rows.mean()], rtol=1e-6)
    assert (places.strides[ours.positive] == 8).all()
    assert (np.abs(at - centre) < 12).all()
    assert len(at) == 9
    assert not (at == [52.0, 52.0]).all(axis=1).any()  # near the middle of the box


def test_the_smallest_box_wins_and_of_equal_ones_the_first():
    boxes = [[0, 0, 60, 60], [20, 20, 44, 44], [20, 20, 44, 44]]
    ours = found(objects_of(boxes), RULE._replace(ranges=(1e3, 2e3, 3e3, 4e3)))
    middle = (places.locations == [28.0, 28.0]).all(axis=1)
    assert ours.truth[middle & (places.strides == 8)] == [1]


def test_both_ends_of_a_range_belong_to_it():
    """(36, 36) of stride 8 and (40, 40) of stride 16 are 16 pixels from a side."""
    on_fine = objects_of([[20, 20, 52, 52]])
    ours = found(on_fine)
    at = (places.locations == [36.0, 36.0]).all(axis=1) & (places.strides == 8)
    assert ours.positive[at] == [True]
    on_coarse = objects_of([[24, 24, 56, 56]])
    ours = found(on_coarse)
    at = (places.locations == [40.0, 40.0]).all(axis=1) & (places.strides == 16)
    assert ours.positive[at] == [True]
    # A little more, and less, is another level's.
    for objects, stride, place in ((on_fine, 8, 36.0), (on_coarse, 16, 40.0)):
        moved = objects._replace(
            boxes=objects.boxes
            + np.float32([[1, 1, -1, -1]] if stride > 8 else [[0, 0, 1, 0]])
        )
        at = (places.locations == [place, place]).all(axis=1)
        assert found(moved).positive[at & (places.strides == stride)] == [False]


def test_an_image_without_objects_is_all_background():
    objects = objects_of([[0, 0, 40, 40]], valid=np.zeros(1, bool))
    ours = found(objects)
    assert not ours.positive.any()
    assert (ours.labels == CLASSES).all()
    assert np.isfinite(ours.distances).all()


def test_padding_changes_nothing():
    boxes, valid = [[8, 8, 60, 60], [30, 20, 90, 80]], np.array([True, True, False])
    padded = objects_of([*boxes, [32, 32, 40, 40]], valid=valid)
    for ours, alone in zip(found(padded), found(objects_of(boxes)), strict=True):
        np.testing.assert_array_equal(ours, alone)


def test_an_object_has_at_most_nine_locations_of_a_level():
    ours = found(
        objects_of([[3, 3, 157, 93]]), RULE._replace(ranges=(1e-3, 200, 3e3, 4e3))
    )
    assert ours.positive.sum() == 9

import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.losses.multibox import (
    ImageObjects,
    PriorMatch,
    PriorRule,
    YolactOutput,
    class_loss,
    mask_loss,
    match_priors,
    multibox_losses,
    semantic_loss,
)
from vis_jax.ops.box_coder import ROI, UPPER, BoxCoder

RULE = PriorRule(positive=0.5, negative=0.4, negatives=3, masks=100)
CANVAS, CELLS, COARSE = (32, 48), (8, 12), (4, 6)
COUNT, CLASSES, PROTOTYPES = 40, 4, 3  # priors; with the background

run = compiled(
    functools.partial(multibox_losses, coder=BoxCoder(ROI, UPPER)),
    static_argnames="rule",
)
match = compiled(match_priors, static_argnames="rule")
of_classes = compiled(class_loss, static_argnames="negatives")
of_masks = compiled(mask_loss, static_argnames="most")
of_cells = compiled(semantic_loss)


def scene(images=2, instances=4, seed=0):
    """Outputs, objects and priors, some of which lie around the objects."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, (24, 14), (images, instances, 2))
    boxes = np.concatenate([low, low + rng.uniform(8, 18, low.shape)], -1)
    boxes = boxes.astype(np.float32)
    masks = rng.random((images, instances, *CANVAS)) < 0.6
    for place in np.ndindex(images, instances):
        x1, y1, x2, y2 = boxes[place].astype(int)
        masks[place][y1 + 2 : y2 - 1, x1 + 2 : x2 - 1] = True
    near = np.repeat(boxes.reshape(-1, 4), COUNT // (2 * images * instances), axis=0)
    near = near + rng.normal(0, 2, near.shape)
    low = rng.uniform(0, (30, 20), (COUNT - len(near), 2))
    far = np.concatenate([low, low + rng.uniform(4, 20, low.shape)], -1)
    priors = np.concatenate([near, far]).astype(np.float32)

    def normal(*shape):
        return rng.normal(0, 2, (images, *shape)).astype(np.float32)

    out = YolactOutput(
        normal(COUNT, CLASSES),
        normal(COUNT, 4),
        np.tanh(normal(COUNT, PROTOTYPES)),
        np.maximum(normal(*CELLS, PROTOTYPES), 0),
        normal(*COARSE, CLASSES - 1),
    )
    labels = rng.integers(0, CLASSES - 1, (images, instances)).astype(np.int32)
    valid = np.arange(instances) < np.array([[instances], [instances - 1]])[:images]
    crowd = np.zeros_like(valid)
    return out, ImageObjects(boxes, labels, masks, valid, crowd), priors


def overlap(a, b):
    """Shared area, and the areas of both."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return np.prod(np.maximum(sides, 0)), *(np.prod(x[2:] - x[:2]) for x in (a, b))


def reduced(mask, size):
    """The mask at another size, read bilinearly at the centres of the new cells."""
    rows, columns = map(weights, size, mask.shape)
    return rows @ mask.astype(float) @ columns.T > 0.5


def weights(cells, pixels):
    """Returns the weight of each pixel of an axis at each cell's centre."""
    at = (np.arange(cells) + 0.5) * pixels / cells - 0.5
    return np.maximum(1 - np.abs(at[:, None] - np.arange(pixels)), 0)


def literal_match(priors, boxes, crowds):
    """Index of the true box of each prior; -1 is background, None is ignored."""
    iou = np.zeros((len(boxes), len(priors)))
    for i, j in np.ndindex(iou.shape):
        both, a, b = overlap(boxes[i], priors[j])
        iou[i, j] = both / (a + b - both)
    found = []
    for j, prior in enumerate(priors):
        best = max((iou[i, j] for i in range(len(boxes))), default=0.0)
        share = max((overlap(c, prior)[0] for c in crowds), default=0.0)
        covered = share / np.prod(prior[2:] - prior[:2]) > 0.7
        if best >= 0.5:
            found.append(int(iou[:, j].argmax()))
        else:
            found.append(None if best >= 0.4 or covered else -1)
    rows, columns = set(range(len(boxes))), set(range(len(priors)))
    while rows:
        i, j = max(((i, j) for i in rows for j in columns), key=lambda x: iou[x])
        found[j] = i
        rows.discard(i)
        columns.discard(j)
    return found


def literal(out, objects, priors):
    """Losses of one image as sums, and its positives; loops in float64."""
    logits, deltas, coefficients, prototypes, semantic = (
        np.asarray(x, np.float64) for x in out
    )
    real = np.flatnonzero(objects.valid & ~objects.crowd)
    crowds = objects.boxes[objects.valid & objects.crowd].astype(np.float64)
    boxes, labels = objects.boxes[real].astype(np.float64), objects.labels[real]
    priors = priors.astype(np.float64)
    found = literal_match(priors, boxes, crowds)
    positives = [j for j, i in enumerate(found) if i not in (None, -1)]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    hard = sorted(
        (j for j, i in enumerate(found) if i == -1), key=lambda j: log_probs[j, 0]
    )[: 3 * len(positives)]
    sums = dict(classes=-sum(log_probs[j, 0] for j in hard), boxes=0.0, masks=0.0)
    cells, pixels = np.prod(CELLS), np.prod(CANVAS)
    for j in positives:
        i = found[j]
        sums["classes"] -= log_probs[j, labels[i] + 1]
        (px, py), size = (
            (priors[j, :2] + priors[j, 2:]) / 2,
            priors[j, 2:] - priors[j, :2],
        )
        centre, sides = (boxes[i, :2] + boxes[i, 2:]) / 2, boxes[i, 2:] - boxes[i, :2]
        wanted = [*((centre - (px, py)) / size / 0.1), *(np.log(sides / size) / 0.2)]
        for error in np.abs(deltas[j] - wanted):
            sums["boxes"] += error - 0.5 if error > 1 else error**2 / 2
        x1, y1, x2, y2 = boxes[i] / 4
        target, total = reduced(objects.masks[real[i]], CELLS), 0.0
        for y, x in np.ndindex(CELLS):
            prob = 1 / (1 + np.exp(-prototypes[y, x] @ coefficients[j]))
            inside = max(x1 - 1, 0) <= x < min(x2 + 1, CELLS[1])
            inside &= max(y1 - 1, 0) <= y < min(y2 + 1, CELLS[0])
            prob = (prob if inside else 0.0) if target[y, x] else 1 - prob * inside
            total -= max(np.log(prob), -100) if prob else -100
        sums["masks"] += total / (np.prod(sides) * cells / pixels)
    wanted = np.zeros(semantic.shape, bool)
    for i, label in zip(real, labels, strict=True):
        wanted[..., label] |= reduced(objects.masks[i], COARSE)
    sums["semantic"] = np.where(
        wanted, np.log1p(np.exp(-semantic)), np.log1p(np.exp(semantic))
    ).sum() / np.prod(COARSE)
    return sums, len(positives)


@pytest.mark.parametrize("crowd", [False, True])
def test_losses_are_those_written_out(crowd):
    out, objects, priors = scene()
    objects.crowd[0, 1] = crowd
    ours = run(
        jax.random.key(0), out, objects, image_valid=np.ones(2, bool), priors=priors,
        rule=RULE,
    )  # fmt: skip
    rows = [
        literal(*(type(x)(*(a[i] for a in x)) for x in (out, objects)), priors)
        for i in range(2)
    ]
    positives = sum(count for _, count in rows)
    assert positives > 10
    for name in ("classes", "boxes", "masks", "semantic"):
        divisor = 2 if name == "semantic" else positives
        expected = sum(sums[name] for sums, _ in rows) / divisor
        np.testing.assert_allclose(
            getattr(ours, name), expected, rtol=1e-4, err_msg=name
        )
    assert ours.left_out == 0


def test_padding_changes_nothing():
    out, objects, priors = scene()
    valid = np.array([False, True])
    call = functools.partial(run, jax.random.key(0), priors=priors, rule=RULE)
    ours = call(out, objects, image_valid=valid)
    other = objects._replace(
        boxes=np.where(objects.valid[..., None], objects.boxes, 7).astype(np.float32),
        masks=objects.masks | ~objects.valid[..., None, None],
    )
    other.boxes[0], other.masks[0] = 3.0, True
    changed = jax.tree.map(lambda x: np.stack([1 - x[0], x[1]]), out)
    junk = call(changed, other, image_valid=valid)
    np.testing.assert_array_equal(ours, junk)
    none = call(out, objects, image_valid=np.zeros(2, bool))
    np.testing.assert_array_equal(none, np.zeros(5))


def box_objects(boxes, crowd=()):
    count = len(boxes)
    is_crowd = np.isin(np.arange(count), crowd)
    return ImageObjects(
        np.array(boxes, np.float32).reshape(count, 4),
        np.zeros(count, np.int32),
        np.zeros((count, 8, 8), bool),
        np.ones(count, bool),
        is_crowd,
    )


PRIORS = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [40, 0, 50, 10]])


def test_each_true_box_gets_a_prior_of_its_own():
    # Both overlap prior 0 most; the second one less, and so has to take prior 1.
    objects = box_objects([[0, 0, 10, 10], [0, 0, 10, 9.5], [46, 0, 66, 10]])
    found = match(PRIORS.astype(np.float32), objects, rule=RULE)
    np.testing.assert_array_equal(found.positive, [True, True, False, True])
    np.testing.assert_array_equal(found.truth[[0, 1, 3]], [0, 1, 2])
    np.testing.assert_array_equal(found.negative, [False, False, True, False])


def test_priors_in_crowds_and_between_the_thresholds_are_ignored():
    objects = box_objects([[0, 0, 10, 10], [19, 0, 31, 8]], crowd=(1,))
    priors = np.append(PRIORS, [[0, 0, 10, 4.5]], axis=0).astype(np.float32)
    found = match(priors, objects, rule=RULE)
    np.testing.assert_array_equal(found.positive, [True, True, False, False, False])
    np.testing.assert_array_equal(found.negative, [False, False, False, True, False])


def test_an_image_without_objects_is_all_background():
    objects = box_objects([[0, 0, 10, 10]])._replace(valid=np.zeros(1, bool))
    found = match(PRIORS.astype(np.float32), objects, rule=RULE)
    assert not found.positive.any()
    assert found.negative.all()


def matching(positive, negative):
    return PriorMatch(
        np.zeros(len(positive), np.int32), np.array(positive), np.array(negative)
    )


def test_the_hardest_negatives_count():
    logits = np.zeros((6, 2), np.float32)
    logits[:, 1] = [0, 5, 1, 3, 2, 4]  # prior 1 is ignored
    found = matching([True] + 5 * [False], [False, False] + 4 * [True])
    labels = np.zeros(1, np.int32)
    ours = of_classes(logits, labels, match=found, negatives=2)
    expected = np.log(2) + np.log1p(np.exp([3, 4])).sum()
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    alone = matching(6 * [False], 6 * [True])
    assert of_classes(logits, labels, match=alone, negatives=2) == 0


def test_a_random_subset_stands_for_all_positives():
    out, objects, _ = scene(images=1)
    one = jax.tree.map(lambda x: x[0], (out, objects))
    same = np.tile(one[0].coefficients[:1], (COUNT, 1))
    found = matching([True] * 6 + [False] * (COUNT - 6), [False] * COUNT)
    call = functools.partial(of_masks, jax.random.key(0), one[0].prototypes)
    every = call(same, one[1], match=found, most=100)
    some = call(same, one[1], match=found, most=4)
    assert (every.left_out, some.left_out) == (0, 2)
    np.testing.assert_allclose(some.loss, every.loss, rtol=1e-5)
    draws = {
        float(
            of_masks(
                jax.random.key(seed), *(one[0].prototypes, one[0].coefficients, one[1]),
                match=found, most=1,
            ).loss
        )
        for seed in range(8)
    }  # fmt: skip
    assert len(draws) > 2


def test_a_true_pixel_outside_of_its_box_costs_a_hundred():
    prototypes = np.full((*CELLS, 1), 50, np.float32)
    masks = np.zeros((1, *CANVAS), bool)
    masks[0, 28:, 44:] = True  # the last cell
    objects = box_objects([[0, 0, 8, 8]])._replace(masks=masks)
    found = matching([True], [False])
    ours = of_masks(
        jax.random.key(0), prototypes, np.ones((1, 1), np.float32), objects,
        match=found, most=1,
    )  # fmt: skip
    # 3 x 3 cells are predicted with certainty where none is true: 50 each.
    np.testing.assert_allclose(ours.loss, (9 * 50 + 100) / 4, rtol=1e-6)


def test_certain_masks_have_a_finite_gradient():
    objects = box_objects([[0, 0, 32, 32]])._replace(masks=np.ones((1, *CANVAS), bool))
    found = matching([True], [False])

    def loss(coefficients, prototypes, objects, found):
        key = jax.random.key(0)
        return mask_loss(
            key, prototypes, coefficients, objects, match=found, most=1
        ).loss

    gradient = compiled(jax.grad(loss))
    prototypes = np.full((*CELLS, 1), 500, np.float32)
    for value in (-1.0, 1.0):
        coefficients = np.full((1, 1), value, np.float32)
        assert np.isfinite(gradient(coefficients, prototypes, objects, found)).all()


def test_a_cell_has_the_classes_of_all_masks_there():
    masks = np.zeros((3, 8, 8), bool)
    masks[0, :4], masks[1, :, :4], masks[2] = True, True, True
    objects = ImageObjects(
        np.zeros((3, 4), np.float32), np.array([0, 1, 0], np.int32), masks,
        np.array([True, True, False]), np.zeros(3, bool),
    )  # fmt: skip
    logits = np.full((2, 2, 2), 20, np.float32)
    # Cells without class 0: the lower two; without class 1: the right two.
    np.testing.assert_allclose(of_cells(logits, objects), 4 * 20 / 4, rtol=1e-6)

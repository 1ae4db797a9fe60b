import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.losses.fcos import (
    DenseTargets,
    FcosOutput,
    centreness,
    dense_focal,
    fcos_losses,
    id_loss,
)

IMAGES, COUNT, CLASSES = 3, 37, 5


def total(out, targets, image_valid):
    """The sum of the losses, and each."""
    found = fcos_losses(out, targets, image_valid=image_valid)
    return found.classes + found.boxes + found.centres, found


run = compiled(fcos_losses)
gradient_of = compiled(jax.grad(total, has_aux=True))


def scene(seed=0, share=0.4):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(0, 2, (IMAGES, COUNT, *shape)).astype(np.float32)

    out = FcosOutput(
        normal(CLASSES), np.maximum(20 * normal(4) + 10, 0), normal(), normal(3),
        normal(2),
    )  # fmt: skip
    positive = rng.random((IMAGES, COUNT)) < share
    labels = rng.integers(0, CLASSES, (IMAGES, COUNT))
    distances = rng.uniform(0.5, 60, (IMAGES, COUNT, 4))
    targets = DenseTargets(
        rng.integers(0, 4, (IMAGES, COUNT)).astype(np.int32),
        np.where(positive, labels, CLASSES).astype(np.int32),
        np.where(positive[..., None], distances, 1.0).astype(np.float32),
        positive,
    )
    return out, targets


def bce(logit, target):
    prob = 1 / (1 + np.exp(-logit))
    return -target * np.log(prob) - (1 - target) * np.log(1 - prob)


def literal_giou(a, b):
    """Returns the GIoU of boxes around the origin, from their sides."""
    overlap = [min(a[i], b[i]) + min(a[i + 2], b[i + 2]) for i in (0, 1)]
    around = [max(a[i], b[i]) + max(a[i + 2], b[i + 2]) for i in (0, 1)]
    areas = [(x[0] + x[2]) * (x[1] + x[3]) for x in (a, b)]
    both = overlap[0] * overlap[1]
    union = sum(areas) - both
    hull = around[0] * around[1]
    return both / union - (hull - union) / hull


def literal(out, targets, counted):
    """The three losses, location by location, in float64."""
    classes = boxes = centres = weight = 0.0
    positives = 0
    for place in np.ndindex(IMAGES, COUNT):
        if not counted[place[0]]:
            continue
        for k, logit in enumerate(out.class_logits[place].astype(np.float64)):
            prob = 1 / (1 + np.exp(-logit))
            if targets.labels[place] == k:
                classes -= 0.25 * (1 - prob) ** 2 * np.log(prob)
            else:
                classes -= 0.75 * prob**2 * np.log(1 - prob)
        if not targets.positive[place]:
            continue
        left, top, right, bottom = wanted = targets.distances[place].astype(np.float64)
        centre = np.sqrt(
            min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
        )
        positives += 1
        weight += centre
        found = out.distances[place].astype(np.float64)
        boxes += centre * (1 - literal_giou(found, wanted))
        centres += bce(float(out.centre_logits[place]), centre)
    return classes / max(positives, 1), boxes / weight, centres / max(positives, 1)


@pytest.mark.parametrize("counted", [(True, True, True), (True, False, True)])
def test_losses_are_those_written_out(counted):
    out, targets = scene()
    ours = run(out, targets, image_valid=np.array(counted))
    np.testing.assert_allclose(ours, literal(out, targets, counted), rtol=1e-5)


def test_gradients_are_those_written_out():
    out, targets = scene(seed=1)
    counted = np.ones(IMAGES, bool)
    gradients, _ = gradient_of(out, targets, counted)
    place = tuple(np.argwhere(targets.positive & (out.distances.min(-1) > 1))[0])
    fields = ("distances", "class_logits", "centre_logits")
    for name in fields:
        gradient = getattr(gradients, name)
        value, entry = getattr(out, name), place[: getattr(out, name).ndim]
        entry = (*entry, *[1] * (value.ndim - 2))
        step, sums = 1e-4, []
        for sign in (1, -1):
            moved = value.astype(np.float64)
            moved[entry] += sign * step
            sums.append(sum(literal(out._replace(**{name: moved}), targets, counted)))
        slope = (sums[0] - sums[1]) / (2 * step)
        np.testing.assert_allclose(gradient[entry], slope, rtol=1e-3, err_msg=name)


def test_images_that_do_not_count_change_nothing():
    out, targets = scene()
    valid = np.array([True, False, True])
    junk = jax.tree.map(np.copy, (out, targets))
    for x in jax.tree.leaves(junk):
        x[1] = x[1][::-1] == x[1] if x.dtype == bool else 2 * x[1] + 1
    np.testing.assert_array_equal(
        run(out, targets, image_valid=valid), run(*junk, image_valid=valid)
    )


def test_without_positives_only_classes_are_trained():
    out, targets = scene(share=0.0)
    out = out._replace(distances=np.zeros_like(out.distances))
    gradient, found = gradient_of(out, targets, np.ones(IMAGES, bool))
    assert found.classes > 0
    assert (found.boxes, found.centres) == (0, 0)
    assert all(np.isfinite(x).all() for x in gradient)
    assert not gradient.distances.any()


def test_boxes_without_area_have_a_finite_gradient():
    out, targets = scene()
    out = out._replace(distances=np.zeros_like(out.distances))
    gradient, found = gradient_of(out, targets, np.ones(IMAGES, bool))
    # They lie within the true ones and share no area with them: a GIoU of 0.
    np.testing.assert_allclose(found.boxes, 1.0, rtol=1e-5)
    assert np.isfinite(gradient.distances).all()


def test_centreness():
    distances = np.array([[5, 5, 5, 5], [1, 5, 4, 5], [2, 3, 8, 12]], np.float32)
    found = compiled(centreness)(distances)
    np.testing.assert_allclose(found, [1.0, 0.5, 0.25], rtol=1e-6)


def test_identities_are_normalised_by_the_positives_of_the_classes():
    """Objects without an identity are background there, and yet are counted."""
    out, targets = scene()
    labels = np.full((IMAGES, COUNT), 2, np.int32)
    focal = functools.partial(compiled(dense_focal), image_valid=np.ones(IMAGES, bool))
    all_counted = focal(out.id_logits, labels, positive=targets.positive)
    one = np.zeros_like(targets.positive)
    one[0, 0] = True
    alone = focal(out.id_logits, labels, positive=one)
    np.testing.assert_allclose(alone / all_counted, targets.positive.sum(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["focal", "bce", "softmax"])
def test_identities_are_learned_by_each_kind_of_loss(kind):
    out, targets = scene()
    image_valid = np.array([True, False, True])
    none = CLASSES - 1 if kind == "softmax" else CLASSES
    ids = np.where(targets.positive, np.minimum(targets.labels, none - 1), none)
    expected = 0.0
    for image, place in np.ndindex(ids.shape):
        if not image_valid[image]:
            continue
        logits = out.class_logits[image, place].astype(np.float64)
        own = (np.arange(CLASSES) == ids[image, place]).astype(float)
        if kind == "softmax":
            expected -= logits[ids[image, place]] - np.log(np.exp(logits).sum())
        else:
            losses = bce(logits, own)
            probs = 1 / (1 + np.exp(-logits))
            wrong = np.where(own > 0, 1 - probs, probs)
            focal = np.where(own > 0, 0.25, 0.75) * wrong**2
            expected += (losses * (focal if kind == "focal" else 1)).sum()
    found = compiled(id_loss, static_argnames="kind")(
        out.class_logits, ids.astype(np.int32), kind=kind, image_valid=image_valid,
        positive=targets.positive,
    )  # fmt: skip
    positives = targets.positive[image_valid].sum()
    np.testing.assert_allclose(found, expected / positives, rtol=1e-5)

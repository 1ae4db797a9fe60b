import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.backbones.fpn import Settings as FpnSettings
from vis_jax.detectors import fcos
from vis_jax.detectors.condinst import (
    CondInstOutput,
    LocationRule,
    MaskBranch,
    MaskSettings,
    build_modules,
    find,
    mask_logits,
    shown_masks,
)
from vis_jax.detectors.condinst_losses import mask_loss
from vis_jax.detectors.fcos import Places, places_of
from vis_jax.losses.fcos import DenseTargets, FcosOutput
from vis_jax.losses.multibox import ImageObjects
from vis_jax.ops.dynamic_masks import num_params

CELLS = ((4, 8), (2, 4), (1, 2), (1, 1), (1, 1))
COUNT = sum(height * width for height, width in CELLS)
CANVAS, CHANNELS, IMAGES, INSTANCES = (32, 64), 3, 2, 4
RULE = LocationRule(0.1, 0.5, candidates=20, size=5)

places = compiled(functools.partial(places_of, CELLS))()
loss = functools.partial(compiled(mask_loss, static_argnames="most"), places=places)


def stages():
    """Features of a ResNet-50 of one image of 384 x 640."""
    return {
        f"res{n}": jax.ShapeDtypeStruct(
            (1, 384 >> n, 640 >> n, 2 ** (n + 6)), jnp.float32
        )
        for n in (3, 4, 5)
    }


def test_the_published_size_has_the_published_numbers():
    for ids, count in ((0, 6_693_347), (20, 7_329_783)):
        model = build_modules(
            FpnSettings(extra="relu_conv"), fcos.Settings(), MaskSettings(),
            classes=40, dtype=jnp.float32, ids=ids,
        )  # fmt: skip

        def both(model, features):
            return model(model.levels(features))

        init = functools.partial(model.init_with_output, method=both)
        out, variables = jax.eval_shape(init, jax.random.key(0), stages())
        counts = {
            part: sum(x.size for x in jax.tree.leaves(tree))
            for part, tree in variables["params"].items()
        }
        assert counts["fpn"] == 3_868_672
        assert counts["head"] + counts["masks"] == count
        assert counts["masks"] == 1_477_384
        assert out.dense.filters.shape == (1, 5_115, 169)
        assert out.features.shape == (1, 48, 80, 8)


def test_the_work_of_the_published_size():
    """GMACs at 384 x 640: pyramid 3.9, towers and outputs 29.9, mask branch 3.8."""
    model = build_modules(
        FpnSettings(extra="relu_conv"), fcos.Settings(), MaskSettings(),
        classes=40, dtype=jnp.float32, ids=20,
    )  # fmt: skip

    def both(model, features):
        return model(model.levels(features))

    shapes = jax.eval_shape(
        functools.partial(model.init, method=both), jax.random.key(0), stages()
    )
    run = jax.jit(functools.partial(model.apply, method=both))
    flops = run.lower(shapes, stages()).cost_analysis()["flops"]
    # XLA does not count products with the padding of a convolution.
    np.testing.assert_allclose(flops / 2e9, 3.9 + 29.9 + 3.8, rtol=0.05)


def branch_levels(images, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(
        rng.normal(size=(images, *size, 5)).astype(np.float32) for size in CELLS
    )


def test_padded_images_are_not_in_the_statistics_of_the_mask_branch():
    branch = MaskBranch(6, 1, CHANNELS)
    levels = branch_levels(3)
    variables = compiled(branch.init)(jax.random.key(0), levels)
    run = compiled(functools.partial(branch.apply, train=True, mutable=["batch_stats"]))
    valid = np.array([True, False, True])
    out, stats = run(variables, levels, valid=valid)
    junk = tuple(np.where(valid[:, None, None, None], x, 9 - x) for x in levels)
    other, other_stats = run(variables, junk, valid=valid)
    np.testing.assert_array_equal(out[valid], other[valid])
    jax.tree.map(np.testing.assert_array_equal, stats, other_stats)
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()),
        stats["batch_stats"], variables["batch_stats"],
    )  # fmt: skip
    assert all(jax.tree.leaves(moved))
    alone, _ = run(variables, tuple(x[valid] for x in levels), valid=np.ones(2, bool))
    np.testing.assert_allclose(out[valid], alone, atol=1e-5)


def test_coarser_levels_reach_the_mask_features_where_they_are():
    """With statistics of 0 and 1, a cell of stride 32 changes its part of the map."""
    branch = MaskBranch(6, 0, CHANNELS)
    levels = branch_levels(1)
    variables = compiled(branch.init)(jax.random.key(0), levels)
    run = compiled(branch.apply)
    out = run(variables, levels)
    assert out.shape == (1, 4, 8, CHANNELS)
    for place in (1, 2):
        changed = list(levels)
        changed[place] = levels[place].copy()
        changed[place][0, 0, 0] += 5.0
        moved = (run(variables, tuple(changed)) != out).any(axis=(0, 3))
        assert moved[0, 0]
        # 3 x 3 cells around it, and one more to interpolate with.
        assert not moved[:, 3 * 2**place :].any()
    for place in (3, 4):
        changed = list(levels)
        changed[place] = levels[place] + 1
        np.testing.assert_array_equal(run(variables, tuple(changed)), out)


def dense(class_probs, centres, distances):
    """Makes the output for locations; the others have no object."""
    classes = np.full((COUNT, 2), -9.0, np.float32)
    middle = np.full(COUNT, 9.0, np.float32)
    sides = np.zeros((COUNT, 4), np.float32)
    for place, probs in class_probs.items():
        classes[place] = np.log(probs) - np.log1p(-np.array(probs))
        middle[place] = np.log(centres[place]) - np.log1p(-centres[place])
        sides[place] = distances[place]
    filters = np.zeros((COUNT, num_params(CHANNELS)), np.float32)
    return FcosOutput(classes, sides, middle, filters, classes[:, :0])


def found(out, size=(32, 64), **changes):
    call = compiled(find, static_argnames=("cells", "rule"))
    rule = RULE._replace(**changes)
    return call(out, places, np.array(size, np.int32), cells=CELLS, rule=rule)


def test_objects_are_ranked_by_class_and_centreness():
    # Locations 0: (4, 4), 3: (28, 4), 7: (60, 4), 9: (12, 12).
    sides = {0: [4, 4, 8, 8], 3: [6, 4, 6, 8], 9: [12, 12, 0, 0], 7: [4, 4, 9, 9]}
    out = dense(
        {0: [0.8, 0.1], 3: [0.2, 0.6], 9: [0.1, 0.9], 7: [0.9, 0.1]},
        {0: 0.9, 3: 0.5, 9: 0.7, 7: 0.1}, sides,
    )  # fmt: skip
    ours = found(out)
    # 9 has the box of 0, and less centreness: 0.63 against 0.72; 7 has 0.09.
    np.testing.assert_array_equal(ours.valid, [True, True, False, False, False])
    np.testing.assert_array_equal(ours.chosen, [0, 3, 0, 0, 0])
    np.testing.assert_array_equal(ours.labels, [0, 1, 2, 2, 2])
    np.testing.assert_allclose(ours.scores, [0.72, 0.3, 0, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(ours.boxes[:2], [[0, 0, 12, 12], [22, 0, 34, 12]])
    assert not ours.boxes[2:].any()
    np.testing.assert_array_equal(
        found(out, score_threshold=0.08).chosen[:3], [0, 3, 7]
    )
    # Cut at the border of the content; beyond it there is nothing.
    np.testing.assert_array_equal(found(out, (8, 30)).boxes[1], [22, 0, 30, 8])
    np.testing.assert_array_equal(found(out, (8, 22)).valid, [True] + 4 * [False])
    assert found(out, candidates=1).valid.sum() == 1


def test_more_objects_than_locations_are_padding():
    out = dense({0: [0.8, 0.1]}, {0: 0.9}, {0: [4, 4, 8, 8]})
    ours = found(out, size=(32, 64), candidates=1)._asdict()
    assert len(ours["valid"]) == 5
    many = found(out, candidates=40) if COUNT > 40 else found(out, candidates=COUNT)
    assert many.valid.sum() == 1


def test_masks_are_shown_half_a_pixel_back():
    logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    ours = compiled(shown_masks)(logits)
    probs = 1 / (1 + np.exp(-logits.astype(np.float64)))
    # Cell i is at pixel 4 i + 2; the middle of the cell at 4 i + 1.5.
    rows = np.interp(np.arange(3) - 1 / 8, np.arange(3), np.arange(3))
    columns = np.interp(np.arange(5) - 1 / 8, np.arange(5), np.arange(5))
    expected = np.zeros_like(probs)
    for n, i, j in np.ndindex(*probs.shape):
        column = [np.interp(columns[j], np.arange(5), probs[n, k]) for k in range(3)]
        expected[n, i, j] = np.interp(rows[i], np.arange(3), column) - 0.5
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def scene(seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=(IMAGES, *shape)).astype(np.float32)

    filters, features = normal(COUNT, num_params(CHANNELS)), normal(4, 8, CHANNELS)
    zeros = np.zeros((IMAGES, COUNT, 4), np.float32)
    said = FcosOutput(zeros, zeros, zeros[..., 0], filters, zeros[..., :0])
    masks = rng.random((IMAGES, INSTANCES, *CANVAS)) < 0.4
    masks[:, 2] = False
    objects = ImageObjects(
        np.zeros((IMAGES, INSTANCES, 4), np.float32),
        np.zeros((IMAGES, INSTANCES), np.int32), masks,
        np.ones((IMAGES, INSTANCES), bool), np.zeros((IMAGES, INSTANCES), bool),
    )  # fmt: skip
    positive = rng.random((IMAGES, COUNT)) < 0.3
    truth = rng.integers(0, INSTANCES, (IMAGES, COUNT)).astype(np.int32)
    targets = DenseTargets(
        truth, np.zeros((IMAGES, COUNT), np.int32), zeros + 1, positive
    )
    return CondInstOutput(said, features), objects, targets


def literal_masks(filters, features, place):
    """Logits of one location, cell by cell, in float64; enlarged by definition."""
    height, width, channels = features.shape
    ends = np.cumsum([8 * (channels + 2), 64, 8, 8, 8])
    w1, w2, w3, b1, b2, b3 = np.split(filters.astype(np.float64), ends)
    small = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        cell = np.array([8 * j + 4, 8 * i + 4])
        near = (places.locations[place] - cell) / (8.0 * places.strides[place])
        x = np.concatenate([near, features[i, j]])
        x = np.maximum(w1.reshape(8, -1) @ x + b1, 0)
        x = np.maximum(w2.reshape(8, 8) @ x + b2, 0)
        small[i, j] = w3 @ x + b3[0]
    big = np.zeros((2 * height, 2 * width))
    for i, j in np.ndindex(*big.shape):
        y, x = (np.clip((k - 1) / 2, 0, n - 1) for k, n in ((i, height), (j, width)))
        at = [np.interp(x, np.arange(width), row) for row in small]
        big[i, j] = np.interp(y, np.arange(height), at)
    return big


def literal_losses(out, objects, targets):
    """Dice of every positive, by image."""
    found = []
    for image in range(IMAGES):
        losses = []
        for place in np.flatnonzero(targets.positive[image]):
            logits = literal_masks(
                out.dense.filters[image, place], out.features[image], place
            )
            probs = 1 / (1 + np.exp(-logits))
            mask = objects.masks[image, targets.truth[image, place]]
            wanted = mask[2::4, 2::4].astype(float)
            squares = (probs**2).sum() + (wanted**2).sum() + 1e-5
            losses.append(1 - 2 * (probs * wanted).sum() / squares)
        found.append(losses)
    return found


def test_mask_logits_are_those_written_out():
    out, _, _ = scene()
    at = np.array([0, 33, COUNT - 1])
    ours = compiled(mask_logits)(
        out.dense.filters[0, at], out.features[0],
        Places(places.locations[at], places.strides[at]),
    )  # fmt: skip
    for place, logits in zip(at, ours, strict=True):
        expected = literal_masks(out.dense.filters[0, place], out.features[0], place)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_mask_losses_are_those_written_out():
    out, objects, targets = scene()
    each = literal_losses(out, objects, targets)
    for valid in ((True, True), (False, True)):
        ours = loss(
            jax.random.key(0), out, objects, targets=targets,
            image_valid=np.array(valid), most=100,
        )  # fmt: skip
        expected = np.concatenate([x for x, ok in zip(each, valid, strict=True) if ok])
        np.testing.assert_allclose(ours.loss, expected.mean(), rtol=1e-4)
        assert ours.left_out == 0


def test_a_random_subset_stands_for_all_positives():
    out, objects, targets = scene()
    positives = targets.positive.sum(axis=1)
    assert positives.min() > 3
    call = functools.partial(
        loss,
        out=out,
        objects=objects,
        targets=targets,
        image_valid=np.ones(IMAGES, bool),
    )
    some = [call(jax.random.key(n), most=3) for n in range(64)]
    assert {float(x.left_out) for x in some} == {positives.sum() - 3 * IMAGES}
    draws = [float(x.loss) for x in some]
    assert len(set(draws)) > 8
    whole = call(jax.random.key(0), most=100)
    assert whole.left_out == 0
    # The mean of draws is the loss of all positives.
    np.testing.assert_allclose(np.mean(draws), whole.loss, rtol=0.05)


def test_no_positives_cost_nothing_and_have_a_finite_gradient():
    out, objects, targets = scene()
    targets = targets._replace(positive=np.zeros_like(targets.positive))

    def of(out, objects, targets, places, valid):
        return mask_loss(
            jax.random.key(0), out, objects, targets=targets, places=places,
            image_valid=valid, most=5,
        ).loss  # fmt: skip

    value, gradients = compiled(jax.value_and_grad(of))(
        out, objects, targets, places, np.ones(IMAGES, bool)
    )
    assert value == 0
    assert not any(x.any() for x in jax.tree.leaves(gradients))


@pytest.mark.parametrize("most", [100, 3])
def test_padding_changes_nothing(most):
    out, objects, targets = scene()
    valid = np.array([False, True])
    call = functools.partial(loss, image_valid=valid, most=most)
    ours = call(jax.random.key(0), out, objects, targets=targets)
    junk = jax.tree.map(np.copy, (out, objects, targets))
    for x in jax.tree.leaves(junk):
        x[0] = ~x[0] if x.dtype == bool else 3 - x[0]
    junk[2].truth[:] = targets.truth
    other = call(jax.random.key(0), junk[0], junk[1], targets=junk[2])
    np.testing.assert_array_equal(ours, other)
    assert ours.loss > 0

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.golden.cases import load, nchw, nhwc
from tests.ops.one_map import roi_align
from vis_jax.ops.roi_align import (
    ALIGNED,
    LEGACY,
    UNALIGNED,
    Adaptive,
    dense_roi_align,
    pyramid_roi_align,
    roi_levels,
)

CASE = load("ops")
STORED = CASE.manifest["settings"]["roi_align"]


def test_a_ramp_is_read_at_the_middle_of_every_cell():
    # The value of a pixel is the position of its centre, in x and y.
    centres = np.stack(np.mgrid[:8, :8][::-1], axis=-1).astype(np.float32) + 0.5
    boxes = np.array([[1.0, 2, 5, 6]])
    read = compiled(
        functools.partial(roi_align, scale=1.0, size=(2, 2), samples=2),
        static_argnames="convention",
    )
    read = functools.partial(read, centres, boxes)
    aligned = read(convention=ALIGNED)[0]
    np.testing.assert_allclose(aligned[..., 0], [[2, 4], [2, 4]], rtol=1e-6)
    np.testing.assert_allclose(aligned[..., 1], [[3, 3], [5, 5]], rtol=1e-6)
    # Without the shift everything is read half a pixel further.
    np.testing.assert_allclose(read(convention=LEGACY)[0], aligned + 0.5, rtol=1e-6)


def test_least_side_of_a_box():
    ramp = np.broadcast_to(np.arange(8.0)[None, :, None], (8, 8, 1))
    point = np.array([[2.0, 2, 2, 2]])
    read = compiled(
        functools.partial(roi_align, scale=1.0, size=(1, 2), samples=2),
        static_argnames="convention",
    )
    read = functools.partial(read, ramp, point)
    np.testing.assert_allclose(read(convention=LEGACY).ravel(), [2, 2])
    np.testing.assert_allclose(read(convention=UNALIGNED).ravel(), [2.25, 2.75])


@pytest.mark.parametrize("stored", STORED, ids=lambda x: str(x["index"]))
def test_matches_torchvision(stored):
    rois = CASE.arrays["roi_align/rois"]
    images = nhwc(CASE.arrays["roi_align/input"])
    read = functools.partial(
        roi_align,
        scale=stored["spatial_scale"],
        size=tuple(stored["output_size"]),
        # The longest region has 53 cells of the map for 3 of the output.
        samples=stored["sampling_ratio"] or Adaptive(18),
        convention=ALIGNED if stored["aligned"] else UNALIGNED,
    )
    both = compiled(jax.vmap(read, (0, None)))(images, rois[:, 1:])
    ours = both[rois[:, 0].astype(int), np.arange(len(rois))]
    CASE.check(f"roi_align/{stored['index']}/output", nchw(ours))


def test_levels_and_pyramid_match_torchvision():
    boxes = CASE.arrays["multiscale_roi_align/boxes"]
    levels = compiled(functools.partial(roi_levels, levels=4, finest=56.0))(boxes)
    CASE.check("multiscale_roi_align/levels", levels)
    CASE.check("multiscale_roi_align/levels_detectron2", levels)
    names = [f"multiscale_roi_align/feature_{level}" for level in range(4)]
    read = functools.partial(
        pyramid_roi_align,
        scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32),
        size=(7, 7),
        samples=2,
        convention=UNALIGNED,
    )
    features = [nhwc(CASE.arrays[name])[0] for name in names]
    ours = compiled(read)(features, boxes, levels)
    CASE.check("multiscale_roi_align/output", nchw(ours))


def test_levels_change_at_powers_of_two():
    side = np.array([0.0, 55, 56, 111.9, 112, 224, 448, 9000])
    boxes = np.stack([side * 0, side * 0, side, side], axis=1)
    levels = compiled(functools.partial(roi_levels, levels=4, finest=56.0))(boxes)
    np.testing.assert_array_equal(levels, [0, 0, 0, 0, 1, 2, 3, 3])


def test_the_gradient_of_a_mean_sums_to_one():
    boxes = np.array([[4.0, 4, 20, 12]], np.float32)

    def mean(features):
        pooled = roi_align(
            features,
            jnp.asarray(boxes),
            scale=0.5,
            size=(3, 3),
            samples=2,
            convention=ALIGNED,
        )
        return pooled.mean()

    gradient = compiled(jax.grad(mean))(np.ones((12, 12, 1)))
    np.testing.assert_allclose(gradient.sum(), 1.0, rtol=1e-5)
    assert (gradient[8:] == 0).all()


def test_adaptive_samples_are_as_many_as_cells_lie_in_a_bin():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(16, 16, 2)).astype(np.float32)
    # Bins of 3 x 3 cells, of 1 x 3 and of less than a cell.
    boxes = np.array([[1, 2, 7, 8], [1, 2, 3, 8], [4, 4, 4.5, 5]], np.float32)

    def read(samples):
        run = functools.partial(roi_align, scale=1.0, size=(2, 2), samples=samples)
        return compiled(functools.partial(run, convention=ALIGNED))(features, boxes)

    ours = read(Adaptive(5))
    np.testing.assert_allclose(ours[0], read(3)[0], atol=1e-6)
    np.testing.assert_allclose(ours[2], read(1)[2], atol=1e-6)
    # With a limit of 2, the largest box has 2 samples.
    np.testing.assert_allclose(read(Adaptive(2))[0], read(2)[0], atol=1e-6)


def test_adaptive_samples_have_the_gradient_of_their_mean():
    boxes = np.array([[2.0, 1, 11, 7], [5, 5, 5, 5]], np.float32)

    def total(features):
        read = functools.partial(roi_align, scale=1.0, size=(2, 3))
        pooled = read(
            features, jnp.asarray(boxes), samples=Adaptive(4), convention=ALIGNED
        )
        return pooled.sum()

    value, gradient = compiled(jax.value_and_grad(total))(np.ones((12, 12, 1)))
    # An empty box reads zero; every bin of the other is a mean of ones.
    np.testing.assert_allclose([value, gradient.sum()], [6, 6], rtol=1e-5)


@pytest.mark.parametrize(
    ("samples", "convention", "parts"),
    [(2, ALIGNED, 1), (1, UNALIGNED, 2), (Adaptive(3), LEGACY, 2)],
)
def test_the_dense_form_is_the_same_in_value_and_gradient(samples, convention, parts):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 9, 3)).astype(np.float32)
    low = rng.uniform(-12, 60, (40, 2))  # some beyond the map
    sides = np.where(rng.random((40, 1)) < 0.1, 0, rng.uniform(1, 60, (40, 2)))
    boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
    wanted = rng.normal(size=(40, 2, 4, 3)).astype(np.float32)
    read = dict(scale=1 / 8, samples=samples, convention=convention)

    def gathered(features, boxes):
        fine = roi_align(features, boxes, size=(2 * parts, 4 * parts), **read)
        return fine.reshape(40, 2, parts, 4, parts, 3).mean((2, 4))

    def dense(features, boxes):
        return dense_roi_align(features, boxes, size=(2, 4), parts=parts, **read)

    def both(read, features, boxes):
        read = functools.partial(read, boxes=boxes)
        values, pull = jax.vjp(read, features)
        return values, pull(wanted)[0]

    expected, found = (
        compiled(functools.partial(both, read))(features, boxes)
        for read in (gathered, dense)
    )
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    assert np.abs(expected[0]).max() > 1

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.detectors.refine import (
    Coarse,
    Refine,
    Settings,
    jitter_boxes,
    patch_boxes,
    read_patch,
    refine_loss,
    refine_masks,
)
from vis_jax.evaluate.masks import stretched
from vis_jax.ops.masks import crop_masks
from vis_jax.ops.roi_align import ALIGNED
from vis_jax.params import flatten

TINY = Settings(side=24, dim=8, blocks=2)
SIZE = np.array([120, 160], np.int32)  # of the frame, which fills the canvas
_read = compiled(read_patch, static_argnums=2)
_jitter = compiled(jitter_boxes)
_squares = compiled(patch_boxes, static_argnums=2)


@functools.partial(compiled, static_argnums=2)
def _cells(masks, boxes, side):
    index = jnp.arange(len(boxes), dtype=jnp.int32)
    return crop_masks(masks, boxes, index, side=side, convention=ALIGNED)


@functools.cache
def _first(settings):
    model = Refine(settings)
    patch = np.zeros((settings.side, settings.side, 4), np.float32)
    return jax.device_get(jax.jit(model.init)(jax.random.key(0), patch))


@functools.cache
def _run(settings):
    def run(variables, pixels, coarse):
        net = functools.partial(Refine(settings).apply, variables)
        return refine_masks(
            net, pixels, coarse, size=jnp.asarray(SIZE), settings=settings
        )

    return compiled(run)


def _disk(y, x, diameter):
    """Pixels of a disk, and the box around those in the frame."""
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    mask = (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 < (diameter / 2) ** 2
    inside = np.argwhere(mask)
    (top, left), (bottom, right) = inside.min(0), inside.max(0) + 1
    return mask, np.float32([left, top, right, bottom])


def _iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_parameters_at_the_published_size():
    patch = jax.ShapeDtypeStruct((384, 384, 4), jnp.float32)
    for stride, side in ((1, 384), (2, 192)):
        model = Refine(Settings(stride=stride), jnp.bfloat16)
        out, variables = jax.eval_shape(
            model.init_with_output, jax.random.key(0), patch
        )
        assert (out.shape, out.dtype) == ((side, side), jnp.float32)
        values = flatten(variables["params"]).values()
        assert sum(x.size for x in values) == 744_065


def test_patches_are_squares_around_boxes():
    boxes = np.float32([[40, 30, 60, 90], [0, 0, 10, 20], [0, 0, 160, 300]])
    found = _squares(boxes, SIZE, Settings())
    np.testing.assert_allclose(found[0], [50 - 45, 60 - 45, 50 + 45, 60 + 45])
    np.testing.assert_allclose(found[1], [5 - 32, 10 - 32, 5 + 32, 10 + 32])
    np.testing.assert_allclose(found[2, 2:] - found[2, :2], [320, 320])
    native = _squares(boxes, SIZE, Settings(crop="native", side=96))
    np.testing.assert_allclose(native[0], [2, 12, 98, 108])
    np.testing.assert_allclose(native[:, 2:] - native[:, :2], 96)


def test_reading_is_bilinear_with_zeros_outside():
    maps = np.random.default_rng(0).random((5, 6, 2)).astype(np.float32)
    box, side = np.float32([-2.0, 1.0, 4.0, 6.5]), 7
    padded = np.pad(maps, ((9, 9), (9, 9), (0, 0)))
    expected = np.zeros((side, side, 2))
    for i, j in np.ndindex(side, side):
        y = box[1] + (i + 0.5) / side * (box[3] - box[1]) - 0.5
        x = box[0] + (j + 0.5) / side * (box[2] - box[0]) - 0.5
        top, left = int(np.floor(y)), int(np.floor(x))
        for dy, dx in np.ndindex(2, 2):
            weight = (1 - abs(y - top - dy)) * (1 - abs(x - left - dx))
            expected[i, j] += weight * padded[9 + top + dy, 9 + left + dx]
    np.testing.assert_allclose(_read(maps, box, side), expected, atol=1e-6)


@pytest.mark.parametrize("at", [(60, 80), (0, 160), (115, 20)])
def test_a_patch_drawn_on_the_frame_is_what_was_cut_out(at):  # property 21
    mask, box = _disk(*at, 100)
    square = _squares(box[None], SIZE, Settings())
    patch = _read(np.float32(mask[..., None]), square[0], 384)[..., 0]
    drawn = stretched(patch[None] - 0.5, square, tuple(SIZE.tolist()))[0].T > 0
    assert _iou(drawn, mask) > 0.98


@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_is_refined_at_first(stride):  # property 21
    settings = Settings(side=64, dim=8, blocks=1, stride=stride)
    masks, boxes = zip(*(_disk(*at, 100) for at in [(60, 80), (0, 160)]), strict=True)
    probs = _cells(np.stack(masks), np.stack(boxes), 28)
    probs = np.concatenate([probs, probs[:1]])
    boxes = np.stack([*boxes, boxes[0]])
    coarse = Coarse(boxes, probs, np.array([True, True, False]))
    pixels = np.random.default_rng(0).normal(size=(*SIZE, 3)).astype(np.float32)
    found = _run(settings)(_first(settings), pixels, coarse)
    assert found.probs.shape == (3, 64 // stride, 64 // stride)
    drawn = stretched(found.probs - 0.5, found.boxes, tuple(SIZE.tolist())) > 0
    for mask, ours in zip(masks, drawn, strict=False):
        assert _iou(ours.T, mask) > 0.95
    assert not found.probs[2].any()
    assert not found.boxes[2].any()


def _scene():
    """Two bright disks, of which only the boxes are known."""
    masks, boxes = zip(*(_disk(*at, 60) for at in [(60, 50), (50, 120)]), strict=True)
    pixels = np.float32(masks[0] | masks[1])[..., None] * np.float32([1, 0.5, -1])
    probs = np.full((2, 28, 28), 0.9, np.float32)
    return pixels, Coarse(np.stack(boxes), probs, np.ones(2, bool)), np.stack(masks)


@compiled
def _loss_and_gradient(variables, pixels, coarse, truth):
    def loss(variables, probs):
        net = functools.partial(Refine(TINY).apply, variables)
        found = coarse._replace(probs=probs)
        return refine_loss(
            net, pixels, found, truth, size=jnp.asarray(SIZE), settings=TINY
        )

    return jax.value_and_grad(loss, (0, 1))(variables, coarse.probs)


def test_it_learns_the_outline_that_the_pixels_show():
    scene, variables = _scene(), _first(TINY)
    losses = []
    for _ in range(30):
        loss, (gradient, into_masks) = _loss_and_gradient(variables, *scene)
        assert not into_masks.any()
        length = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(gradient)))
        rate = np.float32(0.5 / max(length, 1e-6))
        variables = jax.tree.map(lambda x, g, r=rate: x - r * g, variables, gradient)
        losses.append(loss)
    assert losses[0] > 0.2  # of a disk and the square around it
    assert losses[-1] < 0.1


def test_objects_that_are_not_valid_have_no_part_in_the_loss():
    pixels, coarse, truth = _scene()
    one = coarse._replace(valid=np.array([True, False]))
    first, _ = _loss_and_gradient(_first(TINY), pixels, one, truth)
    other, _ = _loss_and_gradient(_first(TINY), pixels, one, truth[[0, 0]])
    assert first == other > 0
    none = coarse._replace(valid=np.zeros(2, bool))
    loss, (gradient, _) = _loss_and_gradient(_first(TINY), pixels, none, truth)
    assert loss == 0
    assert not any(x.any() for x in jax.tree.leaves(gradient))


def test_boxes_are_moved_by_up_to_a_tenth():
    boxes = np.tile(np.float32([[20, 10, 120, 60]]), (200, 1))
    moved = _jitter(jax.random.key(0), boxes, SIZE)
    extent = np.abs(moved - boxes) / np.float32([100, 50, 100, 50])
    assert 0.095 < extent.max() <= 0.1 + 1e-6
    edge = _jitter(jax.random.key(0), np.float32([[0, 0, 160, 120]] * 200), SIZE)
    assert edge.min() == 0
    assert (edge <= np.float32([160, 120, 160, 120])).all()

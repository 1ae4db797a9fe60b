import functools

import jax
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.systems.osmn.guides import (
    CropView,
    ObjectExtent,
    mask_box,
    pad_box,
    place_of,
    spatial_guide,
    visual_guide,
)

places, boxes = compiled(jax.vmap(place_of)), compiled(jax.vmap(mask_box))
picture = compiled(functools.partial(visual_guide, side=4))


def _masks():
    """Masks with even and odd counts, of one pixel, and an empty one."""
    rng = np.random.default_rng(0)
    masks = np.concatenate([rng.random((6, 12, 20)) < p for p in (0.02, 0.1, 0.6)])
    masks[0] = False
    masks[1] = False
    masks[1, 3, 7] = True
    masks[2] = False
    masks[2, 0, 0] = masks[2, 11, 19] = True
    return masks


def test_medians_and_deviations_are_those_of_numpy():
    masks = _masks()
    assert {int(mask.sum()) % 2 for mask in masks} == {0, 1}
    ours = places(masks)
    for i, mask in enumerate(masks[1:], 1):
        y, x = np.nonzero(mask)
        for axis, values in enumerate((x, y)):
            median = np.median(values)
            assert ours.centre[i, axis] == median
            deviation = 1.4826 * np.median(np.abs(values - median))
            expected = max(deviation, 5.0)
            np.testing.assert_allclose(ours.sigma[i, axis], expected, rtol=1e-6)
    assert not ours.sigma[0].any()
    assert float(ours.sigma.max()) > 5  # not all at the lower limit


def test_boxes_around_masks():
    for mask, box in zip(_masks(), boxes(_masks()), strict=True):
        y, x = np.nonzero(mask)
        expected = [x.min(), y.min(), x.max() + 1, y.max() + 1] if mask.any() else [0]
        np.testing.assert_array_equal(box, np.broadcast_to(expected, 4))


def test_the_spatial_guide_is_a_bell():
    place = ObjectExtent(np.array([2.0, 1.0]), np.array([5.0, 10.0]))
    guide = compiled(functools.partial(spatial_guide, size=(3, 8)))
    expected = np.exp(-(5**2 / 5**2 + 1 / 10**2) / 2)
    np.testing.assert_allclose(guide(place)[2, 7], expected, rtol=1e-6)
    assert guide(place)[1, 2] == 1
    assert not guide(ObjectExtent(place.centre, np.zeros(2))).any()


def _view(box, angle=0.0, flip=False):
    return CropView(np.asarray(box, np.float32), np.float32(angle), np.asarray(flip))


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(6, 8, 3)).astype(np.float32)
    return image, rng.random((6, 8)) < 0.7


def test_a_picture_of_the_size_of_the_box_shows_its_pixels(scene):
    image, mask = scene
    expected = np.where(mask[..., None], image, 0)[1:5, 2:6]
    for turns, angle in enumerate((0.0, np.pi / 2, np.pi)):
        turned = np.rot90(expected, turns)
        ours = picture(image, mask, _view([2, 1, 6, 5], angle))
        np.testing.assert_allclose(ours, turned, atol=1e-5)
    flipped = picture(image, mask, _view([2, 1, 6, 5], flip=True))
    np.testing.assert_allclose(flipped, expected[:, ::-1], atol=1e-5)


def test_what_lies_outside_the_image_or_the_box_is_zero(scene):
    image, mask = scene
    mask = np.ones_like(mask)
    outside = picture(image, mask, _view([-2, -1, 2, 3]))
    np.testing.assert_allclose(outside[1:, 2:], image[:3, :2], atol=1e-6)
    assert not outside[:1].any()
    assert not outside[:, :2].any()
    turned = picture(image, mask, _view([2, 1, 6, 5], np.pi / 4))
    assert not turned[0, 0].any()  # the corners of a turned box are not in it
    assert turned[1, 1].any()
    assert not picture(image, mask, _view([0, 0, 0, 0])).any()


def test_padding_is_a_share_of_the_sides():
    box = compiled(functools.partial(pad_box, share=0.1))(np.array([10.0, 0, 30, 10]))
    np.testing.assert_allclose(box, [8, -1, 32, 11], rtol=1e-6)

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.recipes import recipe
from vis_jax.systems import mask_prop_carriers
from vis_jax.systems.mask_prop_carriers import Deform, Flow, LinkObjects
from vis_jax.systems.mask_prop_model import STRIDE, build_model
from vis_jax.systems.mask_prop_settings import FlowSettings

CELLS, RADIUS = (24, 32), 2
MOVED = (2, 1)  # columns and rows from frame to frame


def scene():
    """A blob of waves that moves, as images and as masks on cells, [L ..]."""
    y, x = np.indices((64, 96))
    texture = np.sin(y / 3) + np.sin(x / 4 + y / 7) + np.cos((x - 2 * y) / 6)
    masks = np.zeros((2 * RADIUS + 1, *CELLS), np.float32)
    grey = np.zeros(masks.shape)
    for t in range(len(masks)):
        dx, dy = MOVED[0] * t, MOVED[1] * t
        grey[t] = texture[20 - dy : 44 - dy, 30 - dx : 62 - dx]
        masks[t, 6 + dy : 14 + dy, 8 + dx : 18 + dx] = 1
    pixels = np.uint8(np.round(128 + 30 * grey))[..., None].repeat(3, -1)
    return pixels.repeat(STRIDE, 1).repeat(STRIDE, 2), masks


@pytest.mark.parametrize("chained", [False, True])
def test_flow_carries_masks_to_the_frames_around(chained):
    carrier = Flow(FlowSettings(chained=chained))
    images, masks = scene()
    centre = masks[RADIUS]
    objects = LinkObjects(
        np.stack([centre, 0.5 * centre]), np.ones(2, bool), *[np.zeros(2)] * 3
    )

    @compiled
    def carry(images, masks, frame_valid):
        views = carrier.views({}, images, images)
        found = objects._replace(masks=masks)
        return carrier.carry({}, views[RADIUS], views, frame_valid, found)

    there = np.arange(2 * RADIUS + 1) > 0  # the first frame is not of the video
    tubes = carry(images, objects.masks, there)
    assert tubes.shape == (2, 2 * RADIUS + 1, *CELLS)
    np.testing.assert_allclose(tubes[1], tubes[0] / 2, atol=1e-6)
    np.testing.assert_allclose(tubes[0, RADIUS], centre, atol=1e-6)
    for found, truth in zip(tubes[0, 1:], masks[1:], strict=True):
        both = np.minimum(found, truth).sum()
        assert both / np.maximum(found, truth).sum() > 0.9
    still = (masks[1] * centre).sum() / np.maximum(masks[1], centre).sum()
    assert still < 0.65  # without any flow


def test_views_of_frames_that_are_not_there_have_the_shape_of_others():
    images, _ = scene()
    carrier = Flow(FlowSettings())
    views = compiled(lambda x: carrier.views({}, x, x))(images)
    none = carrier.no_views(len(images), CELLS)
    assert jax.tree.map(np.shape, none) == jax.tree.map(np.shape, views)


def test_flow_has_the_levels_and_warps_of_the_settings(monkeypatch):
    given = []

    def no_flow(a, b, **options):
        given.append(options)
        return jnp.zeros((*a.shape, 2))

    monkeypatch.setattr(mask_prop_carriers, "flow_between", no_flow)
    carrier = Flow(FlowSettings(levels=2, warps=3))
    grey, masks = np.zeros((3, *CELLS), np.float32), np.ones((1, *CELLS), np.float32)
    objects = LinkObjects(masks, np.ones(1, bool), *[np.zeros(1)] * 3)
    tubes = compiled(functools.partial(carrier.carry, {}))(
        grey[1], grey, np.ones(3, bool), objects
    )
    assert given == [{"levels": 2, "warps": 3}]
    assert (tubes == 1).all()


def test_the_network_carries_masks_from_the_centre_to_every_frame_there_is():
    model = build_model(recipe("mask_prop_shapes", "debug"))
    branch, cells, frames = model.propagation.clone(parent=None, name=None), (4, 6), 3
    rng = np.random.default_rng(0)
    p3 = rng.normal(size=(frames, *cells, branch.channels)).astype(np.float32)
    masks = rng.random((2, *cells)).astype(np.float32)
    valid, there = np.array([True, True]), np.array([False, True, True])
    objects = LinkObjects(masks, valid, *[np.zeros(2, np.float32)] * 3)
    shapes = jax.eval_shape(branch.init, jax.random.key(0), p3[0], p3[1], masks, valid)[
        "params"
    ]
    params = jax.tree.map(
        lambda x: (0.4 * rng.normal(size=x.shape)).astype(np.float32), shapes
    )

    @compiled
    def carry(params, p3, there, objects):
        variables = {"params": {"propagation": params}}
        carrier = Deform(model)
        views = carrier.views(variables, p3.astype(np.uint8)[..., :3], p3)
        centre = jax.tree.map(lambda x: x[1], views)
        return carrier.carry(variables, centre, views, there, objects)

    tubes = carry(params, p3, there, objects)
    assert not tubes[:, 0].any()
    one = compiled(branch.apply)
    for t in (1, 2):
        expected = one({"params": params}, p3[1], p3[t], masks, valid)
        np.testing.assert_allclose(tubes[:, t], expected, atol=1e-5)
    assert np.abs(tubes[:, 1] - tubes[:, 2]).max() > 0.01

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recipes import recipe
from tests.systems.contract import check_init, check_step, first_batch
from vis_jax.evaluate.clips import pieces_of
from vis_jax.params import flatten
from vis_jax.settings import read_settings
from vis_jax.systems.mask_prop import build
from vis_jax.systems.mask_prop_model import build_model
from vis_jax.systems.mask_prop_settings import Settings

FRAMES, RADIUS = 7, 2


def settings(dtype="float32", **test):
    """The least network with all parts; all that it finds is an object."""
    return read_settings(
        Settings,
        dict(
            compute_dtype=dtype,
            model=dict(
                num_classes=3,
                stages=dict(
                    iou=(0.5, 0.6), centre_std=(0.1, 0.05), side_std=(0.2, 0.1),
                    weight=(1.0, 0.5),
                ),
                backbone=dict(variant="thin", norm="group"),
                fpn=dict(dim=16),
                rpn=dict(dim=16, proposals=12, scale=4.0),
                regions=dict(sampled=8, positives=4),
                box_head=dict(width=16),
                mask_head=dict(dim=8, convs=1),
                semantic=dict(dim=8, convs=1),
                propagation=dict(dim=8, dilations=(1, 2)),
                refinement=dict(side=16, dim=8, blocks=1),
                track_head=dict(width=8),
            ),
            test=dict(
                score=0.0, objects=4, tracks=24, radius=RADIUS, threshold=0.05,
                clip_length=3, chunk=4,
            ) | test,
        ),
        "config",
    )  # fmt: skip


@functools.cache
def checked():
    system = build(settings())
    changes = {"data.frames": FRAMES, "data.shapes.length": FRAMES}
    batch = first_batch(recipe("mask_track_rcnn_shapes", "debug", changes))
    variables = check_init(system, batch)
    return variables, batch, *check_step(system, variables, batch)


def test_contract():
    _, _, clip, found = checked()
    assert found.valid.sum() >= 4
    assert (found.slots >= 0).sum() > found.valid.sum()  # tracks go on
    side = settings().model.refinement.side
    assert found.mask_logits.shape == (FRAMES, 4, side, side)
    assert clip.frame_valid.all()


def test_clip_by_clip_it_says_the_same():
    variables, _, whole_clip, whole = checked()
    system = build(settings(mode="clip"))
    assert system.window == (3, 3, RADIUS, ())
    run, state, row = jax.jit(system.step), None, 0
    frames, size = list(whole_clip.images), whole_clip.images.shape[1:3]
    for piece in pieces_of(frames, system.window, size):
        state = system.start(piece.clip) if state is None else state
        state, found = run(variables, state, piece.clip)
        part = slice(max(-piece.first, 0), piece.rows)
        now = slice(row, row + part.stop - part.start)
        np.testing.assert_array_equal(found.slots[part], whole.slots[now])
        for name in ("mask_logits", "mask_boxes"):
            ours, theirs = (getattr(x, name) for x in (found, whole))
            np.testing.assert_allclose(ours[part], theirs[now], atol=1e-2, rtol=1e-3)
        row = now.stop
    assert row == FRAMES
    np.testing.assert_array_equal(found.track_ids, whole.track_ids)
    np.testing.assert_allclose(found.class_probs, whole.class_probs, atol=1e-4)


@pytest.mark.parametrize(("propagation", "embeds"), [("iou", 0), ("track_head", 8)])
def test_trackers_link_the_same_objects(propagation, embeds):
    """By shapes alone: detector and trackers have tests of their own."""
    variables, _, clip, whole = checked()
    system = build(settings(propagation=propagation, mode="clip"))
    assert system.window.delay == 0
    state = system.start(clip)
    assert state.tracker.embeds.shape == (24, embeds)
    after, found = jax.eval_shape(system.step, variables, state, clip)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert found.slots.shape == whole.slots.shape
    assert found.mask_logits.shape == whole.mask_logits.shape


def test_optical_flow_carries_masks_of_the_same_objects():
    """By shapes alone, as above."""
    variables, _, clip, whole = checked()
    system = build(settings(propagation="flow"))
    state = system.start(clip)
    assert state.views.shape == (RADIUS, 8, 12)  # brightness
    after, found = jax.eval_shape(system.step, variables, state, clip)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, state)
    assert found.mask_logits.shape == whole.mask_logits.shape


def test_without_refinement_masks_are_those_of_the_cascade():
    """And in bfloat16 all that is kept of frames has it."""
    variables, _, clip, _ = checked()
    system = build(settings("bfloat16", refine=False))
    state = jax.eval_shape(system.start, clip)
    after, found = jax.eval_shape(system.step, variables, state, clip)
    assert found.mask_logits.shape == (FRAMES, 4, 28, 28)
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(
        lambda x: x.dtype, state
    )
    kept = {after.links.masks.dtype, after.views.features.dtype}
    assert kept == {jnp.dtype("bfloat16")}


def test_parameters_at_the_published_size():
    full = read_settings(
        Settings,
        {"model": {"num_classes": 40, "track_head": {"width": 1024}}},
        "config",
    )
    model = build_model(full)
    image = jax.ShapeDtypeStruct((1, 96, 96, 3), np.float32)
    size = jax.ShapeDtypeStruct((2,), np.int32)
    look = functools.partial(model.init, method="look")
    variables = jax.eval_shape(look, jax.random.key(0), image, size)
    counts = {}
    for path, value in flatten(variables["params"]).items():
        part = path.split("/")[0]
        counts[part] = counts.get(part, 0) + value.size
    # The cascade with ResNet-50; its batch norm has statistics beside the parameters.
    extra = {"propagation": 2_310_146, "refinement": 744_065, "track_head": 13_895_680}
    assert {name: counts.pop(name) for name in extra} == extra
    assert sum(counts.values()) == 80_067_959


def test_more_objects_than_the_detector_can_find_are_refused():
    with pytest.raises(ValueError, match=r"test\.objects: expected at most 36"):
        build(settings(objects=37))

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.recipes import recipe
from tests.systems.contract import check_learns, check_statistics, check_system
from tests.systems.traced import check_dtypes
from vis_jax.evaluate.clips import pieces_of
from vis_jax.params import flatten
from vis_jax.settings import read_settings
from vis_jax.systems.mask_prop import build
from vis_jax.systems.mask_prop_model import build_model
from vis_jax.systems.mask_prop_settings import Settings

FRAMES, RADIUS, SUPPORT = 7, 2, 1


def config(changes=None):
    """All that the network finds is an object, and all parts train.

    There is batch norm in the backbone.
    """
    free = {
        "model.backbone.norm": "batch",
        "test.score": 0.0, "test.radius": RADIUS, "test.threshold": 0.05,
        "test.tracks": 24, "test.clip_length": 3, "data.frames": FRAMES,
        "data.shapes.length": FRAMES, "model.track_head.width": 8,
    }  # fmt: skip
    return recipe("mask_prop_shapes", "debug", {**free, **(changes or {})})


def system_of(changes=None):
    return build(config(changes))


SAMPLED = {"model.temporal": "stsn", "test.support": SUPPORT}
SAMPLING = ("temporal_0", "temporal_1")


@functools.cache
def checked():
    """With temporal sampling: with a closed gate, it is the system without."""
    # Patches that are refined have more of an object's surroundings.
    return check_system(build, config(SAMPLED), boxes_inside=False)


def variables_of(gate=None):
    """All but those of temporal sampling, or all with a gate that far open."""
    params = dict(checked().variables["params"])
    parts = {name: dict(params.pop(name)) for name in SAMPLING}
    if gate is not None:
        for part in parts.values():
            part["gate"] = np.float32(gate)
        params |= parts
    return checked().variables | {"params": params}


@functools.cache
def plain():
    """Output for the clip of the system without temporal sampling."""
    system = system_of()

    @compiled
    def step(variables, clip):
        return system.step(variables, system.start(clip), clip)[1]

    return step(variables_of(), checked().clip)


def test_contract():
    found, clip = checked().predictions, checked().clip
    assert found.valid.sum() >= 4
    assert (found.slots >= 0).sum() > found.valid.sum()  # tracks go on
    side = config().model.refinement.side
    assert found.mask_logits.shape == (FRAMES, 4, side, side)
    assert clip.frame_valid.all()


def test_updates_bring_the_loss_down():
    check_learns(checked(), updates=8, rate=0.05, mean_of=3)


def test_statistics_of_the_batch_are_handed_on_without_padded_frames():
    check_statistics(checked(), {"backbone"})


def test_bfloat16_computes_without_hidden_promotion():
    """And all that is kept of frames has it."""
    half = SAMPLED | {"test.mode": "clip", "compute_dtype": "bfloat16"}
    before, after = check_dtypes(build, config(half))
    forms = [jax.tree.map(lambda x: (x.shape, x.dtype), x) for x in (before, after)]
    assert forms[0] == forms[1]
    kept = (*after.kept.fine, *after.kept.coarse, after.links.masks)
    assert {x.dtype for x in (*kept, after.views.features)} == {jnp.dtype("bfloat16")}


def clip_by_clip_as(whole, system, variables):
    """Checks that clips of a video, the last one padded, give what all of it gave."""
    images = checked().clip.images
    start, run = compiled(system.start), compiled(system.step)
    state, row = None, 0
    for piece in pieces_of(list(images), system.window, images.shape[1:3]):
        state = start(piece.clip) if state is None else state
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


def test_clip_by_clip_it_says_the_same():
    system = system_of({"test.mode": "clip"})
    assert system.window == (3, 3, RADIUS, (), 32)
    clip_by_clip_as(plain(), system, variables_of())


def sampled(gate=0.7, **changes):
    """Output of the system with temporal sampling, for the clip or a changed one."""
    start = jax.jit(checked().system.start)(checked().clip)
    variables = variables_of(gate)
    clip = checked().clip._replace(**changes)
    return jax.device_get(checked().step(variables, start, clip))[1]


def test_a_closed_gate_leaves_everything_as_it_was():
    found = sampled(gate=0)
    np.testing.assert_array_equal(found.slots, plain().slots)
    near = functools.partial(np.testing.assert_allclose, atol=1e-4)
    jax.tree.map(near, found, plain())


def test_without_temporal_sampling_all_else_has_the_same_names():
    init, batch = system_of().init, checked().batch
    shapes = dict(jax.eval_shape(init, jax.random.key(0), batch))
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, variables_of())


def test_an_open_gate_reads_the_frames_around_and_no_others():
    clip, first = checked().clip, sampled()
    assert np.abs(first.mask_boxes - plain().mask_boxes).max() > 0.1
    images = clip.images.copy()
    images[0] = 255 - images[0]
    other = sampled(images=images)
    far = slice(SUPPORT + 1, None)
    np.testing.assert_array_equal(first.mask_boxes[far], other.mask_boxes[far])
    np.testing.assert_array_equal(first.mask_logits[far], other.mask_logits[far])
    changed = np.abs(first.mask_boxes - other.mask_boxes).max(axis=(1, 2))
    assert (changed[: SUPPORT + 1] > 0).all()
    # Nor those behind the end of a video.
    real = np.arange(FRAMES) < 4
    first = sampled(frame_valid=real)
    images = clip.images.copy()
    images[4:] = 255 - images[4:]
    other = sampled(images=images, frame_valid=real)
    for name in ("mask_boxes", "mask_logits", "slots"):
        ours, theirs = (getattr(x, name)[:4] for x in (first, other))
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(first.class_probs, other.class_probs)
    assert (first.slots[4:] == -1).all()


def test_clip_by_clip_it_reads_the_same_frames_around():
    by_clip = SAMPLED | {"test.mode": "clip"}
    system = system_of(by_clip)
    assert system.window.delay == RADIUS + SUPPORT
    variables = variables_of(gate=0.7)
    clip_by_clip_as(sampled(), system, variables)


def test_in_training_a_closed_gate_leaves_the_features_as_they_were():
    """The loss depends on nothing else that temporal sampling changes."""
    images = checked().batch.images[:, 0] / np.float32(255)

    @compiled
    def pyramids(variables, images):
        def of(changes):
            model, kept = build_model(config(changes)), ["batch_stats"]
            found, _ = model.apply(
                variables, images, True, method="pair_pyramid", mutable=kept
            )
            return found

        return of(SAMPLED), of(None)

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        *pyramids(variables_of(gate=0), images),
    )


def test_in_training_the_frames_of_a_pair_read_each_other():
    """The loss of a closed gate has all terms, and a gradient in all other parts."""
    batch, run = checked().batch, checked().loss_and_gradient
    (closed, aux), gradient = run(variables_of(gate=0)["params"], batch)
    assert np.isfinite(closed)
    assert aux.terms.keys() == {
        "rpn_class", "rpn_box", "box_class", "box", "mask", "semantic", "track",
        "propagation", "refinement",
    }  # fmt: skip
    assert all(gradient[name]["gate"] != 0 for name in SAMPLING)
    for path, x in flatten(gradient).items():
        if not path.startswith(SAMPLING):
            assert np.isfinite(x).all() and np.any(x != 0), path
    (changed, _), gradient = run(variables_of(gate=0.7)["params"], batch)
    assert abs(changed - closed) > 1e-4
    for path, x in flatten({name: gradient[name] for name in SAMPLING}).items():
        assert np.isfinite(x).all() and np.any(x != 0), path


@pytest.mark.parametrize(
    ("propagation", "embeds", "refine", "side"),
    [("iou", 0, False, 28), ("track_head", 8, True, 16)],
)
def test_trackers_link_the_same_objects(propagation, embeds, refine, side):
    """By shapes alone: detector and trackers have tests of their own.

    Without refinement masks are those of the cascade.
    """
    variables = variables_of()
    clip, whole = checked().clip, checked().predictions
    changes = {"test.propagation": propagation, "test.refine": refine}
    system = system_of(changes | {"test.mode": "clip"})
    assert system.window.delay == 0
    state = jax.eval_shape(system.start, clip)
    assert state.tracker.embeds.shape == (24, embeds)
    after, found = jax.eval_shape(system.step, variables, state, clip)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert found.slots.shape == whole.slots.shape
    assert found.mask_logits.shape == (FRAMES, 4, side, side)


def test_optical_flow_carries_masks_of_the_same_objects():
    """By shapes alone, as above."""
    variables = variables_of()
    clip, whole = checked().clip, checked().predictions
    system = system_of({"test.propagation": "flow"})
    state = jax.eval_shape(system.start, clip)
    assert state.views.shape == (RADIUS, 8, 12)  # brightness
    after, found = jax.eval_shape(system.step, variables, state, clip)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, state)
    assert found.mask_logits.shape == whole.mask_logits.shape


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


def test_an_argument_of_the_recipe_enriches_features():
    run = recipe("mask_prop_x101", "stsn")
    assert (run.model.temporal, run.test.support) == ("stsn", 6)
    assert run.init_fresh == ("(propagation|refinement)/.*", "temporal_./.*")
    plain = recipe("mask_prop", "backbone=x101,deform")
    assert plain.model.temporal == "none"
    assert plain.init_fresh == run.init_fresh[:1]


@pytest.mark.parametrize("propagation", ["iou", "track_head"])
def test_trackers_do_not_see_the_frames_around(propagation):
    message = r"test\.propagation: .* with model\.temporal 'stsn'.* got"
    with pytest.raises(ValueError, match=message):
        config(SAMPLED | {"test.propagation": propagation})


def test_settings_say_which_regions_become_objects():
    rule = build_model(config({"test.nms": 0.4})).rules.detections
    assert (rule.score_threshold, rule.iou_threshold) == (0.0, 0.4)
    assert rule.size == config().test.objects


def test_more_objects_than_the_detector_can_find_are_refused():
    most = config().model.rpn.proposals * config().model.num_classes
    with pytest.raises(ValueError, match=rf"test\.objects: expected at most {most}"):
        system_of({"test.objects": most + 1})


def test_semantic_classes_that_no_object_has_are_refused():
    with pytest.raises(ValueError, match=r"model\.semantic\.classes: expected 0 or 9"):
        system_of({"model.semantic.classes": 183})

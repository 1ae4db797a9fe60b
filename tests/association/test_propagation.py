import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.association import literal_propagation as literal
from tests.association.small_propagation import (
    CHANNELS,
    DIM,
    SIZE,
    changed_params,
    init_shapes,
    make_inputs,
    random_params,
    run_compiled,
    see_pair,
    small_model,
)
from tests.compiled import compiled
from vis_jax.association.propagation import MaskPropagation, PreparedFeatures, Settings
from vis_jax.ops.deform_conv import deform_conv


@pytest.mark.parametrize(
    "settings",
    [
        {"dilations": (3, 6, 12)},
        {"fuse": "linear", "norm": "none"},
        {"fuse": "norm_relu", "null_slot": True, "chunk": 1000},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "default",
)
def test_matches_the_definition_cell_by_cell(settings):
    model = small_model(**settings)
    params = random_params(model)
    centre, other, masks, valid = make_inputs(size=(13, 14))
    valid[1] = False
    ours = run_compiled(model)({"params": params}, centre, other, masks, valid)
    double = jax.tree.map(lambda x: x.astype(np.float64), params)
    expected = literal.propagate(
        double,
        *(x.astype(np.float64) for x in (centre, other, masks)),
        valid,
        dilations=model.settings.dilations,
        fuse=model.settings.fuse,
        norm=model.settings.norm,
    )
    assert (ours[1] == 0).all()
    assert np.ptp(expected[0]) > 0.05
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_gradients_are_those_of_the_definition():
    """By central differences in float64, along a direction of each input by itself."""
    model = small_model(dilations=(3, 6, 12))
    centre, other, masks, valid = make_inputs(instances=2, size=(7, 8))
    inputs = (random_params(model), centre, other, masks)
    rng = np.random.default_rng(2)
    weights = rng.normal(size=masks.shape)

    def ours(params, centre, other, masks):
        given = (centre, other, masks, jnp.asarray(valid))
        found = model.apply({"params": params}, *given)
        return (found * weights.astype(np.float32)).sum()

    def defined(inputs):
        found = literal.propagate(
            *inputs, valid, dilations=(3, 6, 12), fuse="relu", norm="group"
        )
        return (found * weights).sum()

    gradients = compiled(jax.grad(ours, argnums=(0, 1, 2, 3)))(*inputs)
    inputs = jax.tree.map(lambda x: x.astype(np.float64), inputs)
    for number, gradient in enumerate(gradients):
        along = jax.tree.map(lambda x: rng.normal(size=x.shape), inputs[number])
        sides = []
        for step in (1e-5, -1e-5):
            moved = list(inputs)
            moved[number] = jax.tree.map(
                lambda x, d, step=step: x + step * d, inputs[number], along
            )
            sides.append(defined(moved))
        slopes = jax.tree.map(lambda g, d: (g * d).sum(), gradient, along)
        expected = (sides[0] - sides[1]) / 2e-5
        assert abs(expected) > 0.01
        np.testing.assert_allclose(
            sum(jax.tree.leaves(slopes)), expected, rtol=1e-3, atol=1e-4
        )


def test_size_of_the_branch_of_the_paper():
    shapes = init_shapes(MaskPropagation(Settings(), 256), size=(8, 8))["params"]
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == 2_310_146


def _direct(params, offsets, centre, other, masks, dilations):
    """Masks by deformable convolutions of every instance by itself."""

    def one(mask):
        total = jnp.zeros_like(centre)
        for number, dilation in enumerate(dilations):
            part = offsets[:, :, 9 * number : 9 * number + 9]
            total += deform_conv(
                centre * mask[..., None],
                params[f"warp_{dilation}"],
                part.reshape(*mask.shape, 1, 3, 3, 2),
                modulation=None,
                stride=1,
                padding=dilation,
                dilation=dilation,
            )
        fused = jax.nn.relu(total / len(dilations) + other)
        return (fused @ params["mask_kernel"])[..., 0] + params["mask_bias"]

    return jax.nn.softmax(jax.lax.map(one, masks), axis=0)


def test_shared_taps_are_the_direct_form_in_value_and_gradient():
    """Property 5, for features, masks and all kernels, those of offsets among them."""
    model = small_model()
    variables = {"params": random_params(model)}
    centre, other, masks, valid = make_inputs()
    weights = np.random.default_rng(2).normal(size=masks.shape).astype(np.float32)

    def shared(variables, centre, other, masks):
        return model.apply(variables, centre, other, masks, jnp.asarray(valid))

    def direct(variables, centre, other, masks):
        prepare = functools.partial(model.apply, variables, method="prepare")
        pair = prepare(centre), prepare(other)
        offsets = model.apply(variables, *pair, method="offsets")
        shares = _direct(variables["params"], offsets, centre, other, masks, (1, 2))
        return shares * pair[1].attention[None]

    def total(form, *inputs):
        found = form(*inputs)
        return (found * weights).sum(), found

    results = []
    for form in (shared, direct):
        run = jax.value_and_grad(
            functools.partial(total, form), argnums=(0, 1, 2, 3), has_aux=True
        )
        (_, found), gradients = compiled(run)(variables, centre, other, masks)
        results.append((found, gradients))
    (ours, our_gradients), (expected, expected_gradients) = results
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert all(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(expected_gradients[1:]))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4),
        our_gradients,
        expected_gradients,
    )


def test_a_fresh_branch_leaves_masks_where_they_are():
    """Property 6: g = M f, and the other frame has a say by its features alone."""
    model = small_model()
    variables = changed_params(model)
    params = variables["params"]
    centre, other, masks, valid = make_inputs()
    features = np.maximum(masks[..., None] * centre + other, 0)
    powers = np.exp(features @ params["mask_kernel"][:, 0])
    ours = see_pair(model)(variables, centre, other, masks, valid)
    expected = ours.attention * powers / powers.sum(0)
    np.testing.assert_allclose(ours.masks, expected, atol=1e-5)


def test_equal_frames_have_no_offsets_at_first():
    """Property 6: also once the kernels of offsets are no longer zero."""
    model = small_model()
    variables = changed_params(model, offsets_1=1.0, offsets_2=1.0)
    found = see_pair(model)(variables, *make_inputs())
    assert (found.still == 0).all()
    assert np.abs(found.offsets).max() > 0.1


def test_masks_follow_features_by_the_offsets():
    """Property 7: content two cells lower and one to the left."""
    model, size = small_model(), (11, 12)
    moved_by = (2, -1)
    steps = np.tile(-np.array(moved_by, np.float32), 9) / DIM
    kernel = np.zeros((3, 3, DIM, 18), np.float32)
    kernel[1, 1] = steps[None]
    eye = np.zeros((3, 3, CHANNELS, 1), np.float32)
    eye[1, 1] = 3.0
    variables = changed_params(
        model,
        # The residual block gives 1 everywhere, the offsets are those of `steps`.
        shortcut__kernel=0.0,
        conv2__kernel=0.0,
        norm2__bias=1.0,
        offsets_1=kernel,
        offsets_2=kernel,
        mask_kernel=1.0,
        attention__kernel=eye,
        attention__bias=-15.0,
    )
    masks = np.zeros((2, *size), np.float32)
    masks[0, 1:4, 2:5] = masks[1, 5:8, 6:10] = 1
    centre = np.zeros((*size, CHANNELS), np.float32)
    centre += 10 * (masks[0][..., None] * [1, 0, 0, 0, 0]).astype(np.float32)
    centre += 10 * (masks[1][..., None] * [0, 0, 1, 0, 0]).astype(np.float32)
    expected = np.roll(masks, moved_by, axis=(1, 2))
    other = np.roll(centre, moved_by, axis=(0, 1))
    ours = run_compiled(model)(variables, centre, other, masks, np.ones(2, bool))
    there = expected.any(0)
    assert (ours.argmax(0) == expected.argmax(0))[there].all()
    for found, mask in zip(ours, expected, strict=True):
        overlap = (found * mask).sum() / (found + mask - found * mask).sum()
        assert overlap >= 0.99


def test_the_order_of_instances_and_padding_do_not_matter():
    """Property 8: the sum is the attention map, all of which a single one has."""
    model = small_model()
    variables = {"params": random_params(model)}
    centre, other, masks, valid = make_inputs()
    ours, attention, *_ = see_pair(model)(variables, centre, other, masks, valid)

    def run(masks, valid):
        return see_pair(model)(variables, centre, other, masks, valid).masks

    np.testing.assert_allclose(ours.sum(0), attention, atol=1e-6)
    turned = run(masks[::-1].copy(), valid)
    np.testing.assert_allclose(turned[::-1], ours, atol=1e-6)
    padding = np.concatenate([masks, 1 - masks])
    padded = run(padding, np.arange(6) < 3)
    np.testing.assert_allclose(padded[:3], ours, atol=1e-6)
    assert (padded[3:] == 0).all()
    single = run(masks, np.array([False, True, False]))
    np.testing.assert_allclose(single[1], attention, atol=1e-6)
    nobody = run(masks, np.zeros(3, bool))
    assert (nobody == 0).all()


def test_with_a_null_slot_a_single_instance_does_not_have_it_all():
    model = small_model(null_slot=True)
    variables = changed_params(model, null_logit=2.0)
    *inputs, _ = make_inputs()
    alone = np.array([False, True, False])

    def share(variables):
        found = see_pair(model)(variables, *inputs, alone)
        return found.masks[1] / found.attention

    first = share(variables)
    assert (first > 0.01).all() and (first < 0.5).all()
    assert (share(changed_params(model, null_logit=-2.0)) > first).all()


@pytest.mark.parametrize("fuse", ["linear", "relu", "norm_relu"])
def test_present_features_cancel_unless_something_not_linear_follows(fuse):
    """Property 8: why the paper's equations need a ReLU."""
    model = small_model(fuse=fuse)
    variables = {"params": random_params(model)}
    inputs = make_inputs()
    field = np.random.default_rng(3).normal(size=inputs[1].shape).astype(np.float32)
    one, *_, taps = see_pair(model)(variables, *inputs)
    assert taps.shape == (*SIZE, 18, 1 if fuse == "linear" else CHANNELS)
    two = see_pair(model)(variables, *inputs, field).masks
    difference = np.abs(one - two).max()
    assert difference < 1e-5 if fuse == "linear" else difference > 1e-3


def test_without_masks_all_instances_share_alike():
    """Property 9."""
    model = small_model()
    variables = {"params": random_params(model)}
    centre, other, masks, valid = make_inputs()
    ours, attention, *_ = see_pair(model)(variables, centre, other, 0 * masks, valid)
    expected = np.broadcast_to(attention / 3, ours.shape)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_padding_of_the_canvas_reaches_no_further_than_the_offsets():
    """Property 10, without the group norm, whose statistics are of the whole canvas."""
    model = small_model(norm="none")
    variables = {"params": random_params(model)}
    centre, other, masks, valid = make_inputs(size=(9, 10))

    def pad(x, axis):
        widths = [(0, 0)] * x.ndim
        widths[axis], widths[axis + 1] = (0, 3), (0, 4)
        return np.pad(x, widths)

    ours = run_compiled(model)(variables, centre, other, masks, valid)
    padded = run_compiled(model)(
        variables, pad(centre, 0), pad(other, 0), pad(masks, 1), valid
    )
    # One cell of the second convolution, two of the largest dilation.
    np.testing.assert_allclose(padded[:, :6, :7], ours[:, :6, :7], atol=1e-5)


def test_half_precision_stays_near():
    """Property 10."""
    model = small_model()
    half = MaskPropagation(model.settings, CHANNELS, jnp.bfloat16)
    variables = {"params": random_params(model)}
    inputs = make_inputs()
    ours = run_compiled(half)(variables, *inputs)
    assert ours.dtype == np.float32
    expected = see_pair(model)(variables, *inputs).masks
    np.testing.assert_allclose(ours, expected, atol=0.1)
    prepare = functools.partial(half.apply, method="prepare")
    prepared = jax.eval_shape(prepare, variables, inputs[0])
    assert isinstance(prepared, PreparedFeatures)


@pytest.mark.parametrize("dilations", [(), (3, 3)])
def test_dilations_are_some_and_different(dilations):
    with pytest.raises(ValueError, match="dilations: expected at least one"):
        Settings(dilations=dilations)


def test_memory_is_that_of_a_chunk():
    sizes = []
    for chunk in (16, 1000):
        model = small_model(chunk=chunk)
        inputs = make_inputs(size=(13, 14))
        run = jax.jit(model.apply).lower({"params": random_params(model)}, *inputs)
        sizes.append(run.compile().memory_analysis().temp_size_in_bytes)
    # 182 cells in twelve chunks, of which each reads 72 rows of 5 numbers a cell.
    assert sizes[0] < sizes[1] - 150 * 72 * 5 * 4


def test_callers_map_over_frames():
    model = small_model()
    variables = {"params": random_params(model)}
    centre, other, masks, valid = make_inputs()
    one = see_pair(model)(variables, centre, other, masks, valid).masks
    over = jax.vmap(model.apply, (None, None, 0, None, None))
    both = compiled(over)(variables, centre, np.stack([centre, other]), masks, valid)
    np.testing.assert_allclose(both[1], one, atol=1e-6)

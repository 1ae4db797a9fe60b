import functools
import math
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.association import literal_propagation as literal
from tests.compiled import compiled
from vis_jax.association.propagation import PreparedFeatures, Propagation, Settings
from vis_jax.ops.deform_conv import deform_conv

SIZE, CHANNELS, DIM = (6, 7), 5, 4


class Seen(NamedTuple):
    """All that a pair of frames gives, from one program."""

    masks: np.ndarray
    attention: np.ndarray  # of the other frame
    offsets: np.ndarray
    still: np.ndarray  # offsets from the centre frame to itself
    taps: np.ndarray


@functools.cache
def _see(model):
    """Compiled (variables, centre, other, masks, valid, field) -> `Seen`.

    `field` is added to the features of the other frame once its offsets are known.
    """

    def see(module, centre, other, masks, valid, field):
        first, second = module.prepare(centre), module.prepare(other)
        changed = second._replace(features=second.features + field)
        taps = module.taps(centre)
        return Seen(
            module.propagate(first, taps, changed, masks, valid),
            second.attention,
            module.offsets(first, second),
            module.offsets(first, first),
            taps,
        )

    run = compiled(functools.partial(model.apply, method=see))

    def call(variables, centre, other, masks, valid, field=None):
        field = np.zeros_like(other) if field is None else field
        return run(variables, centre, other, masks, valid, field)

    return call


@functools.cache
def _run(model):
    """Compiled (variables, centre, other, masks, valid) -> masks."""
    return compiled(model.apply)


def _model(**settings):
    small = dict(dim=DIM, dilations=(1, 2), chunk=16) | settings
    return Propagation(Settings(**small), CHANNELS)


def _init(model, instances=3, size=SIZE):
    maps = np.zeros((*size, model.channels), np.float32)
    masks = np.zeros((instances, *size), np.float32)
    key = jax.random.key(0)
    return jax.eval_shape(model.init, key, maps, maps, masks, np.ones(instances, bool))


def _random_params(model, seed=0):
    """Values unlike those of a fresh module: offsets of about a cell."""
    rng = np.random.default_rng(seed)
    shapes = _init(model)["params"]
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * 0.4).astype(np.float32), shapes
    )


@functools.cache
def _fresh(model):
    """Parameters as they are initialised."""
    values = compiled(model.init)(jax.random.key(0), *_inputs())
    return flax.traverse_util.flatten_dict(values["params"], sep="/")


def _changed(model, **values):
    """Fresh parameters but for these, by path with "__" for "/"."""
    params = dict(_fresh(model))
    for path, value in values.items():
        path = path.replace("__", "/")
        params[path] = np.broadcast_to(
            np.asarray(value, np.float32), params[path].shape
        )
    return {"params": flax.traverse_util.unflatten_dict(params, sep="/")}


def _inputs(instances=3, size=SIZE, seed=1):
    rng = np.random.default_rng(seed)
    centre, other = rng.normal(size=(2, *size, CHANNELS)).astype(np.float32)
    masks = rng.random((instances, *size)).astype(np.float32)
    return centre, other, masks, np.ones(instances, bool)


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
    model = _model(**settings)
    params = _random_params(model)
    centre, other, masks, valid = _inputs(size=(13, 14))
    valid[1] = False
    ours = _run(model)({"params": params}, centre, other, masks, valid)
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


@pytest.mark.slow
def test_gradients_are_those_of_the_definition():
    """By central differences in float64, along a direction of each input by itself."""
    model = _model(dilations=(3, 6, 12))
    centre, other, masks, valid = _inputs(instances=2, size=(7, 8))
    inputs = (_random_params(model), centre, other, masks)
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
    shapes = _init(Propagation(Settings(), 256), size=(8, 8))["params"]
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


@pytest.mark.slow
def test_shared_taps_are_the_direct_form_in_value_and_gradient():
    """Property 5, for features, masks and all kernels, those of offsets among them."""
    model = _model()
    variables = {"params": _random_params(model)}
    centre, other, masks, valid = _inputs()
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
    model = _model()
    variables = _changed(model)
    params = variables["params"]
    centre, other, masks, valid = _inputs()
    features = np.maximum(masks[..., None] * centre + other, 0)
    powers = np.exp(features @ params["mask_kernel"][:, 0])
    ours = _see(model)(variables, centre, other, masks, valid)
    expected = ours.attention * powers / powers.sum(0)
    np.testing.assert_allclose(ours.masks, expected, atol=1e-5)


def test_equal_frames_have_no_offsets_at_first():
    """Property 6: also once the kernels of offsets are no longer zero."""
    model = _model()
    variables = _changed(model, offsets_1=1.0, offsets_2=1.0)
    found = _see(model)(variables, *_inputs())
    assert (found.still == 0).all()
    assert np.abs(found.offsets).max() > 0.1


def test_masks_follow_features_by_the_offsets():
    """Property 7: content two cells lower and one to the left."""
    model, size = _model(), (11, 12)
    moved_by = (2, -1)
    steps = np.tile(-np.array(moved_by, np.float32), 9) / DIM
    kernel = np.zeros((3, 3, DIM, 18), np.float32)
    kernel[1, 1] = steps[None]
    eye = np.zeros((3, 3, CHANNELS, 1), np.float32)
    eye[1, 1] = 3.0
    variables = _changed(
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
    ours = _run(model)(variables, centre, other, masks, np.ones(2, bool))
    there = expected.any(0)
    assert (ours.argmax(0) == expected.argmax(0))[there].all()
    for found, mask in zip(ours, expected, strict=True):
        overlap = (found * mask).sum() / (found + mask - found * mask).sum()
        assert overlap >= 0.99


def test_the_order_of_instances_and_padding_do_not_matter():
    """Property 8: the sum is the attention map, all of which a single one has."""
    model = _model()
    variables = {"params": _random_params(model)}
    centre, other, masks, valid = _inputs()
    ours, attention, *_ = _see(model)(variables, centre, other, masks, valid)

    def run(masks, valid):
        return _see(model)(variables, centre, other, masks, valid).masks

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
    model = _model(null_slot=True)
    variables = _changed(model, null_logit=2.0)
    *inputs, _ = _inputs()
    alone = np.array([False, True, False])

    def share(variables):
        found = _see(model)(variables, *inputs, alone)
        return found.masks[1] / found.attention

    first = share(variables)
    assert (first > 0.01).all() and (first < 0.5).all()
    assert (share(_changed(model, null_logit=-2.0)) > first).all()


@pytest.mark.parametrize("fuse", ["linear", "relu", "norm_relu"])
def test_present_features_cancel_unless_something_not_linear_follows(fuse):
    """Property 8: why the paper's equations need a ReLU."""
    model = _model(fuse=fuse)
    variables = {"params": _random_params(model)}
    inputs = _inputs()
    field = np.random.default_rng(3).normal(size=inputs[1].shape).astype(np.float32)
    one, *_, taps = _see(model)(variables, *inputs)
    assert taps.shape == (*SIZE, 18, 1 if fuse == "linear" else CHANNELS)
    two = _see(model)(variables, *inputs, field).masks
    difference = np.abs(one - two).max()
    assert difference < 1e-5 if fuse == "linear" else difference > 1e-3


def test_without_masks_all_instances_share_alike():
    """Property 9."""
    model = _model()
    variables = {"params": _random_params(model)}
    centre, other, masks, valid = _inputs()
    ours, attention, *_ = _see(model)(variables, centre, other, 0 * masks, valid)
    expected = np.broadcast_to(attention / 3, ours.shape)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_padding_of_the_canvas_reaches_no_further_than_the_offsets():
    """Property 10, without the group norm, whose statistics are of the whole canvas."""
    model = _model(norm="none")
    variables = {"params": _random_params(model)}
    centre, other, masks, valid = _inputs(size=(9, 10))

    def pad(x, axis):
        widths = [(0, 0)] * x.ndim
        widths[axis], widths[axis + 1] = (0, 3), (0, 4)
        return np.pad(x, widths)

    ours = _run(model)(variables, centre, other, masks, valid)
    padded = _run(model)(variables, pad(centre, 0), pad(other, 0), pad(masks, 1), valid)
    # One cell of the second convolution, two of the largest dilation.
    np.testing.assert_allclose(padded[:, :6, :7], ours[:, :6, :7], atol=1e-5)


def test_half_precision_stays_near():
    """Property 10."""
    model = _model()
    half = Propagation(model.settings, CHANNELS, jnp.bfloat16)
    variables = {"params": _random_params(model)}
    inputs = _inputs()
    ours = _run(half)(variables, *inputs)
    assert ours.dtype == np.float32
    expected = _see(model)(variables, *inputs).masks
    np.testing.assert_allclose(ours, expected, atol=0.1)
    prepare = functools.partial(half.apply, method="prepare")
    prepared = jax.eval_shape(prepare, variables, inputs[0])
    assert isinstance(prepared, PreparedFeatures)


@pytest.mark.parametrize("dilations", [(), (3, 3)])
def test_dilations_are_some_and_different(dilations):
    with pytest.raises(ValueError, match="dilations: expected at least one"):
        Settings(dilations=dilations)


@pytest.mark.slow
def test_memory_is_that_of_a_chunk():
    sizes = []
    for chunk in (16, 1000):
        model = _model(chunk=chunk)
        inputs = _inputs(size=(13, 14))
        run = jax.jit(model.apply).lower({"params": _random_params(model)}, *inputs)
        sizes.append(run.compile().memory_analysis().temp_size_in_bytes)
    # 182 cells in twelve chunks, of which each reads 72 rows of 5 numbers a cell.
    assert sizes[0] < sizes[1] - 150 * 72 * 5 * 4


def test_callers_map_over_frames():
    model = _model()
    variables = {"params": _random_params(model)}
    centre, other, masks, valid = _inputs()
    one = _see(model)(variables, centre, other, masks, valid).masks
    over = jax.vmap(model.apply, (None, None, 0, None, None))
    both = compiled(over)(variables, centre, np.stack([centre, other]), masks, valid)
    np.testing.assert_allclose(both[1], one, atol=1e-6)

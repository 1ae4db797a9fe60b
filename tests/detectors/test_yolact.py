import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.detectors.yolact import (
    PriorSettings,
    ProtoNet,
    Settings,
    YolactRule,
    build_modules,
    canvas_of,
    combine,
    cropped_masks,
    find,
    priors_of,
)
from vis_jax.losses.multibox import YolactOutput
from vis_jax.settings import read_settings

RULE = YolactRule(0.1, 0.5, candidates=4, size=4, across_classes=False)
PRIORS = np.array([[0, 0, 16, 16], [0, 0, 16, 14], [32, 0, 48, 16], [60, 0, 80, 16]])


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def stages(height, width, dtype=jnp.float32):
    return {
        f"res{n}": shape(1, height >> n, width >> n, 2 ** (n + 6), dtype=dtype)
        for n in (3, 4, 5)
    }


def traced(settings, features, dtype=jnp.float32):
    """Levels, output and number of parameters as shapes."""
    model = build_modules(settings, dtype)

    def both(model, features):
        levels = model.levels(features)
        assert canvas_of(levels) == tuple(8 * n for n in features["res3"].shape[1:3])
        return levels, model(levels)

    init = functools.partial(model.init_with_output, method=both)
    (levels, out), variables = jax.eval_shape(init, jax.random.key(0), features)
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    return levels, out, count


def test_the_published_size_has_the_published_numbers():
    settings = Settings(num_classes=40)
    _, out, count = traced(settings, stages(480, 864))
    assert count == 7_370_031
    assert jax.tree.map(jnp.shape, out) == YolactOutput(
        (1, 25_935, 41), (1, 25_935, 4), (1, 25_935, 32), (1, 120, 216, 32),
        (1, 60, 108, 40),
    )  # fmt: skip


def test_outputs_are_float32_whatever_is_computed_in():
    settings = read_settings(Settings, {"num_classes": 2, "fpn": {"dim": 8}}, "model")
    features = stages(64, 64, jnp.bfloat16)
    levels, out, _ = traced(settings, features, jnp.bfloat16)
    assert {x.dtype for x in levels} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in out} == {jnp.dtype("float32")}


def test_priors_are_shares_of_the_image_in_the_settings():
    sizes = ((60, 108), (30, 54), (15, 27), (8, 14), (4, 7))
    levels = tuple(np.zeros((1, *size, 1), np.float32) for size in sizes)
    of = compiled(functools.partial(priors_of, settings=PriorSettings()))
    corners = of(levels)
    sides = corners[:, 2:] - corners[:, :2]
    # Ratios 1, 1/2 and 2; sides of the square ones 1.288 times 24 and 384.
    np.testing.assert_allclose(sides[0], [30.9, 30.9], atol=0.05)
    np.testing.assert_allclose(sides[1:3, 0] / sides[1:3, 1], [0.5, 2], rtol=1e-4)
    np.testing.assert_allclose(sides[-3], [494.6, 494.6], atol=0.1)
    np.testing.assert_allclose(corners[0, :2] + sides[0] / 2, [4, 4], atol=1e-3)
    # As many pixels on a smaller canvas.
    small = tuple(x[:, : x.shape[1] // 2 or 1] for x in levels)
    other = of(small)
    np.testing.assert_allclose((other[:, 2:] - other[:, :2])[:3], sides[:3], rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sides": (24.0,)}, r"sides: expected 5, one a level, got \(24.0,\)"),
        ({"ratios": ()}, r"ratios: expected at least one, got \(\)"),
        ({"image": (480,)}, r"image: expected \(height, width\), got \(480,\)"),
        ({"divisor": 0.0}, "divisor: expected float, above 0, got 0.0"),
    ],
)
def test_priors_that_cannot_be_are_errors(fields, message):
    with pytest.raises(ValueError, match=f"priors.{message}"):
        read_settings(PriorSettings, fields, "model.priors")


def output(probs, deltas=None):
    """Makes the output for four priors; the first class is the background."""
    with np.errstate(divide="ignore"):  # some are 0
        logits = np.log(np.array(probs, np.float32))
    zeros = np.zeros((4, 4), np.float32)
    return YolactOutput(
        logits,
        zeros if deltas is None else deltas,
        np.zeros((4, 1), np.float32),
        np.zeros((2, 2, 1), np.float32),
        np.zeros((1, 1, 2), np.float32),
    )


def found(out, size=(64, 96), **changes):
    call = compiled(find, static_argnames="rule")
    rule = RULE._replace(**changes)
    return call(out, PRIORS.astype(np.float32), np.array(size, np.int32), rule=rule)


PROBS = [[0.1, 0.6, 0.3], [0.1, 0.5, 0.4], [0.7, 0.05, 0.25], [0.95, 0.04, 0.01]]


def test_objects_are_found_for_each_class():
    out = found(output(PROBS))
    # The second box is better for class 1; it suppresses the first.
    np.testing.assert_array_equal(out.priors, [0, 1, 2, 2])
    np.testing.assert_array_equal(out.labels, [0, 1, 1, 0])
    np.testing.assert_allclose(out.scores, [0.6, 0.4, 0.25, 0.05], rtol=1e-5)
    np.testing.assert_allclose(out.boxes, PRIORS[[0, 1, 2, 2]], atol=1e-5)


def test_across_classes_a_prior_has_one_class():
    out = found(output(PROBS), across_classes=True)
    np.testing.assert_array_equal(out.valid, [True, True, False, False])
    np.testing.assert_array_equal(out.priors[:2], [0, 2])
    np.testing.assert_array_equal(out.labels, [0, 1, 2, 2])
    np.testing.assert_allclose(out.scores[:2], [0.6, 0.25], rtol=1e-5)
    assert not out.boxes[2:].any()


def test_boxes_outside_of_the_content_are_no_objects():
    probs = [[0.1, 0.8, 0.1]] * 4
    deltas = np.zeros((4, 4), np.float32)
    deltas[2] = [10, 0, 0, 0]  # by one width: 48 .. 64
    out = found(output(probs, deltas), size=(64, 50))
    kept = out.boxes[out.valid]
    assert kept[:, 0].max() == pytest.approx(48)
    out = found(output(probs, deltas), size=(64, 47))
    assert out.boxes[out.valid][:, 0].max() == 0


def test_masks_are_probabilities_within_boxes():
    prototypes = np.arange(8 * 8, dtype=np.float32).reshape(8, 8, 1) - 30
    logits = compiled(combine)(prototypes, np.array([[1.0], [-1.0]], np.float32))
    np.testing.assert_array_equal(logits[1], -logits[0])
    boxes = np.array([[8, 4, 16, 12]] * 2, np.float32)  # cells 2 .. 4, 1 .. 3
    crop = compiled(cropped_masks, static_argnums=2)
    masks = crop(logits, boxes, (32, 32))
    inside = np.zeros((8, 8), bool)
    inside[0:4, 1:5] = True  # and one cell around
    np.testing.assert_array_equal(masks[:, ~inside], -0.5)
    probs = 1 / (1 + np.exp(-logits[:, inside]))
    np.testing.assert_allclose(masks[:, inside], probs - 0.5, atol=1e-6)


def test_prototypes_are_not_negative_and_twice_as_fine():
    x = np.random.default_rng(0).normal(size=(1, 3, 5, 4)).astype(np.float32)
    net = ProtoNet(4, 6)
    out, _ = compiled(net.init_with_output)(jax.random.key(0), x)
    assert out.shape == (1, 6, 10, 6)
    assert out.min() == 0 < out.max()


def test_whole_channels_are_dropped_in_training_alone():
    settings = read_settings(
        Settings, {"num_classes": 2, "fpn": {"dim": 4}, "dropout": 0.5}, "model"
    )
    model = build_modules(settings, jnp.float32)
    x = np.ones((2, 4, 4, 64), np.float32)

    @functools.partial(compiled, static_argnames="train")
    def drop(key, *, train):
        def inner(model):
            return model.drop(x, deterministic=not train)

        return model.apply({}, method=inner, rngs={"dropout": key})

    np.testing.assert_array_equal(drop(jax.random.key(0), train=False), x)
    out = drop(jax.random.key(0), train=True)
    assert set(np.unique(out)) == {0, 2}
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1, :1], out.shape))
    assert (out[0] != out[1]).any()

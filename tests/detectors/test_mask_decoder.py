import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.layers import literal
from vis_jax.detectors.mask_decoder import ClipDecoder, attend_clip
from vis_jax.layers.queries import ClipFeatures

DIM, QUERIES, FRAMES, LAYERS = 8, 4, 3, 3
SIZES = ((1, 2), (2, 3), (3, 4))
DECODER = ClipDecoder(DIM, 2, LAYERS, QUERIES, 16, outputs=6, prior=None)


def _valid(count):
    return (np.arange(FRAMES) < count)[None]


@pytest.fixture(scope="module")
def case():
    """Noisy parameters, compiled decoder, features, result on three frames."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    levels = tuple(draw(1, FRAMES, *size, DIM) for size in SIZES)
    features = ClipFeatures(levels, draw(1, FRAMES, 6, 8, DIM))
    shapes = jax.eval_shape(DECODER.init, jax.random.key(0), features, _valid(3))
    variables = literal.noisy(shapes)
    apply = compiled(DECODER.apply)
    return variables, apply, features, apply(variables, features, _valid(3))


def _literal(variables, features):
    params = literal.double(variables["params"])
    tables, heads = params["tables"], params["heads"]
    x, position = tables["query_feat"], tables["query_embed"]
    classes, embeds = [literal.classify(heads, x)], [literal.embed(heads, x)]
    for index in range(LAYERS):
        size = SIZES[index % 3]
        tokens = features.levels[index % 3][0] + tables["level_embed"][index % 3]
        time = literal.sine(FRAMES, DIM)[:, None, None]
        keys = (tokens + literal.sine_2d(*size, DIM) + time).reshape(-1, DIM)
        inside = np.concatenate(
            [
                literal.foreground(embeds[-1], fine, size)
                for fine in features.mask_features[0]
            ],
            axis=-1,
        )
        inside |= ~inside.any(-1, keepdims=True)
        values = tokens.reshape(-1, DIM)
        p = params[f"cross_attention_{index}"]
        seen = literal.attention(p, x + position, keys, values, inside)
        x = literal.norm(params[f"cross_norm_{index}"], x + seen)
        p = params[f"self_attention_{index}"]
        seen = literal.attention(p, x + position, x + position, x)
        x = literal.norm(params[f"self_norm_{index}"], x + seen)
        seen = literal.feed_forward(params[f"ffn_{index}"], x)
        x = literal.norm(params[f"ffn_norm_{index}"], x + seen)
        classes.append(literal.classify(heads, x))
        embeds.append(literal.embed(heads, x))
    return np.stack(classes), np.stack(embeds)


def test_a_query_looks_at_its_mask_or_at_everything_real():
    inside = np.zeros((1, 2, 3, 2), bool)
    inside[0, 0, 0, 1] = True  # query 0: one pixel of frame 0
    inside[0, 1, 1] = True  # query 1: all of frame 1, which is padding
    valid = np.array([[True, False]])
    found = attend_clip(jnp.array(inside), jnp.array(valid))
    # Queries 1 and 2 have no real pixel inside: they see all of frame 0.
    expected = [[False, True, False, False], *[[True, True, False, False]] * 2]
    np.testing.assert_array_equal(found[0], expected)


def test_is_the_literal_form(case):
    variables, _, features, found = case
    classes, embeds = _literal(variables, features)
    np.testing.assert_allclose(found.class_logits[:, 0], classes, atol=2e-5)
    for frame in range(FRAMES):  # one mask embedding for all frames
        np.testing.assert_allclose(found.mask_embeds[:, 0, frame], embeds, atol=2e-5)


def test_one_frame_and_padding_after_it(case):
    variables, apply, features, _ = case
    padded = apply(variables, features, _valid(1))
    junk = jax.tree.map(lambda x: np.concatenate([x[:, :1], 9 - x[:, 1:]], 1), features)
    junked = apply(variables, junk, _valid(1))
    single = jax.tree.map(lambda x: x[:, :1], features)
    alone = apply(variables, single, np.ones((1, 1), bool))
    np.testing.assert_array_equal(padded.class_logits, junked.class_logits)
    np.testing.assert_allclose(padded.class_logits, alone.class_logits, atol=1e-5)
    np.testing.assert_allclose(
        padded.mask_embeds[:, :, :1], alone.mask_embeds, atol=1e-5
    )


def test_permuted_slots_permute_the_result(case):
    variables, apply, features, before = case
    order = np.array([2, 0, 3, 1])
    tables = dict(variables["params"]["tables"])
    for name in ("query_feat", "query_embed"):
        tables[name] = tables[name][order]
    moved = {"params": variables["params"] | {"tables": tables}}
    after = apply(moved, features, _valid(3))
    for name, axis in (("class_logits", 2), ("mask_embeds", 3)):
        expected = np.take(np.asarray(getattr(before, name)), order, axis)
        np.testing.assert_allclose(getattr(after, name), expected, atol=1e-5)


def test_a_mask_with_nothing_inside_counts_as_no_mask(case):
    """Mask features of -e . e < 0 everywhere against those of +e . e > 0."""
    variables, apply, features, _ = case
    params = dict(variables["params"])
    heads = dict(params["heads"])
    # All queries get the same mask embedding, the last bias, whatever they hold.
    mlp = jax.tree.map(np.zeros_like, heads["mask_embed"])
    mlp["layers_2"]["bias"] = np.ones(DIM, np.float32)
    params["heads"] = heads | {"mask_embed": mlp}
    results = [
        apply(
            {"params": params},
            features._replace(mask_features=np.full_like(features.mask_features, sign)),
            _valid(3),
        ).class_logits
        for sign in (-1.0, 1.0)
    ]
    assert np.isfinite(results[0]).all()
    np.testing.assert_array_equal(*results)


def test_bfloat16_gives_float32_predictions(case):
    decoder = DECODER.clone(dtype=jnp.bfloat16)
    features = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), case[2])
    out, variables = jax.eval_shape(
        decoder.init_with_output, jax.random.key(0), features, _valid(3)
    )
    assert {x.dtype for x in jax.tree.leaves((out, variables))} == {jnp.dtype("f4")}

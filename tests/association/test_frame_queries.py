import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.layers import literal
from vis_jax.association.frame_queries import FrameDecoder, FrameRecurrence
from vis_jax.layers.queries import ClipFeatures

DIM, HEADS, QUERIES, FRAMES = 8, 2, 4, 3
SIZES = ((1, 2), (2, 3), (3, 4))
PLAIN = dict(
    frame_ffn=True,
    type_embed=False,
    mask_clip_group=True,
    temporal_position=False,
    remat=False,
)
OTHER = dict(
    frame_ffn=False,
    type_embed=True,
    mask_clip_group=False,
    temporal_position=True,
    remat=True,
)


def _decoder(options, *, layers=3, dtype=jnp.float32):
    shared = dict(queries=QUERIES, mlp_dim=16, outputs=5, prior=None, dtype=dtype)
    return FrameDecoder(DIM, HEADS, layers, **shared, **options)


def _features(seed=0, frames=FRAMES, dtype=np.float32):
    rng = np.random.default_rng(seed)
    maps = (rng.normal(size=(1, frames, *s, DIM)).astype(dtype) for s in SIZES)
    fine = rng.normal(size=(1, frames, 6, 8, DIM)).astype(dtype)
    return ClipFeatures(tuple(maps), fine)


def _setup(options, **kwargs):
    decoder = _decoder(options, **kwargs)
    valid = np.ones((1, FRAMES), bool)
    shapes = jax.eval_shape(decoder.init, jax.random.key(0), _features(), valid)
    return literal.noisy(shapes), jax.jit(decoder.apply)


@pytest.fixture(scope="module")
def plain():
    """Parameters, compiled decoder, features, and its result on three frames."""
    variables, apply = _setup(PLAIN)
    features = _features()
    return variables, apply, features, apply(variables, features, _valid(3))


def _valid(count):
    return (np.arange(FRAMES) < count)[None]


def _literal_layer(params, index, options, x, position, tokens, inside):
    """Frame by frame, self-attention over both groups of queries."""
    p, where = params[f"frame_{index}"], literal.sine_2d(*tokens.shape[1:3], DIM)
    group = p["group"] if options["type_embed"] else np.zeros((2, DIM))
    before, frame_queries = x, []
    for frame, see in zip(tokens, inside, strict=True):
        keys, values = (frame + where).reshape(-1, DIM), frame.reshape(-1, DIM)
        see = see | ~see.any(-1, keepdims=True)
        groups = []
        for queries, mask in (
            (before, see),
            (x, see if options["mask_clip_group"] else None),
        ):
            cross = p["cross_attention"]
            seen = literal.attention(cross, queries + position, keys, values, mask)
            groups.append(literal.norm(p["cross_norm"], queries + seen))
        both = np.concatenate(groups)
        positions = np.concatenate([position, position])
        keys = both + positions + np.repeat(group, QUERIES, axis=0)
        seen = literal.attention(p["self_attention"], both + positions, keys, both)
        both = literal.norm(p["self_norm"], both + seen)
        if options["frame_ffn"]:
            both = both + literal.feed_forward(p["ffn"], both)
            both = literal.norm(p["ffn_norm"], both)
        before = both[:QUERIES]
        frame_queries.append(before)
    return np.stack(frame_queries)


def _literal_update(p, options, x, position, frame_queries):
    keys = frame_queries + position
    if options["temporal_position"]:
        keys = keys + literal.sine(FRAMES, DIM)[:, None]
    keys, values = keys.reshape(-1, DIM), frame_queries.reshape(-1, DIM)
    seen = literal.attention(p["temporal_attention"], x + position, keys, values)
    u = literal.norm(p["temporal_norm"], x + seen)
    seen = literal.attention(p["self_attention"], u + position, u + position, u)
    u = literal.norm(p["self_norm"], u + seen)
    return literal.norm(p["ffn_norm"], u + literal.feed_forward(p["ffn"], u))


def _literal(variables, options, features, layers):
    """The whole decoder as the paper writes it: [L, Q, K], [L, T, Q, C]."""
    params = literal.double(variables["params"])
    tables, heads = params["tables"], params["heads"]
    x, position = tables["query_feat"], tables["query_embed"]
    classes = [literal.classify(heads, x)]
    embeds = [np.stack([literal.embed(heads, x)] * FRAMES)]
    for index in range(layers):
        level = index % len(SIZES)
        inside = [
            literal.foreground(e, f, SIZES[level])
            for e, f in zip(embeds[-1], features.mask_features[0], strict=True)
        ]
        tokens = features.levels[level][0] + tables["level_embed"][level]
        frame_queries = _literal_layer(
            params, index, options, x, position, tokens, inside
        )
        clip = params[f"clip_{index}"]
        x = _literal_update(clip, options, x, position, frame_queries)
        classes.append(literal.classify(heads, x))
        embeds.append(literal.embed(heads, frame_queries))
    return np.stack(classes), np.stack(embeds)


def test_is_the_literal_form_with_both_groups(plain):
    variables, _, features, found = plain
    classes, embeds = _literal(variables, PLAIN, features, layers=3)
    np.testing.assert_allclose(found.class_logits[:, 0], classes, atol=2e-5)
    np.testing.assert_allclose(found.mask_embeds[:, 0], embeds, atol=2e-5)


def test_is_the_literal_form_with_the_other_options():
    variables, apply = _setup(OTHER, layers=1)
    features = _features(1)
    found = apply(variables, features, _valid(3))
    classes, embeds = _literal(variables, OTHER, features, layers=1)
    np.testing.assert_allclose(found.class_logits[:, 0], classes, atol=2e-5)
    np.testing.assert_allclose(found.mask_embeds[:, 0], embeds, atol=2e-5)


def test_time_has_a_direction(plain):
    variables, apply, features, forward = plain
    backward = apply(variables, jax.tree.map(lambda x: x[:, ::-1], features), _valid(3))
    same = np.asarray(backward.mask_embeds)[1:, :, ::-1]
    # Rounding would differ by 1e-6.
    assert np.abs(same - forward.mask_embeds[1:]).max() > 1e-2
    assert np.abs(backward.class_logits[1:] - forward.class_logits[1:]).max() > 1e-3


def test_a_still_clip_has_masks_that_change(plain):
    variables, apply, features, _ = plain
    still = jax.tree.map(lambda x: np.repeat(x[:, :1], FRAMES, axis=1), features)
    embeds = np.asarray(apply(variables, still, _valid(3)).mask_embeds)
    assert np.abs(embeds[1:, :, 1] - embeds[1:, :, 0]).max() > 1e-2


def test_permuted_slots_permute_the_result(plain):
    variables, apply, features, before = plain
    order = np.array([2, 0, 3, 1])
    tables = dict(variables["params"]["tables"])
    for name in ("query_feat", "query_embed"):
        tables[name] = tables[name][order]
    moved = {"params": variables["params"] | {"tables": tables}}
    after = apply(moved, features, _valid(3))
    for name, axis in (("class_logits", 2), ("mask_embeds", 3)):
        expected = np.take(np.asarray(getattr(before, name)), order, axis)
        np.testing.assert_allclose(getattr(after, name), expected, atol=1e-5)


def test_one_frame_and_padding_after_it(plain):
    variables, apply, features, _ = plain
    padded = apply(variables, features, _valid(1))
    junk = jax.tree.map(lambda x: np.concatenate([x[:, :1], 9 - x[:, 1:]], 1), features)
    junked = apply(variables, junk, _valid(1))
    single = jax.tree.map(lambda x: x[:, :1], features)
    alone = apply(variables, single, np.ones((1, 1), bool))
    np.testing.assert_array_equal(padded.class_logits, junked.class_logits)
    np.testing.assert_array_equal(
        padded.mask_embeds[:, :, :1], junked.mask_embeds[:, :, :1]
    )
    np.testing.assert_allclose(padded.class_logits, alone.class_logits, atol=1e-5)
    np.testing.assert_allclose(
        padded.mask_embeds[:, :, :1], alone.mask_embeds, atol=1e-5
    )


def _recurrence_inputs(frames=4, tokens=6):
    rng = np.random.default_rng(0)
    shapes = ((1, QUERIES, DIM), (QUERIES, DIM), *[(1, frames, tokens, DIM)] * 2)
    attend = rng.random((1, frames, QUERIES, tokens)) < 0.7
    return *(rng.normal(size=s).astype(np.float32) for s in shapes), attend


def test_a_frame_changes_itself_and_what_follows():
    recurrence = FrameRecurrence(DIM, HEADS, 16, True, False, True, False)
    inputs = _recurrence_inputs()
    shapes = jax.eval_shape(recurrence.init, jax.random.key(0), *inputs)
    apply = jax.jit(recurrence.apply)
    variables = literal.noisy(shapes)
    before = np.asarray(apply(variables, *inputs))
    for changed in range(4):
        x, position, keys, values, attend = inputs
        keys, values = keys.copy(), values.copy()
        keys[:, changed] += 1.0
        values[:, changed] -= 1.0
        after = np.asarray(apply(variables, x, position, keys, values, attend))
        differs = (before != after).any((0, 2, 3))
        np.testing.assert_array_equal(differs, np.arange(4) >= changed)


def test_bfloat16_gives_float32_predictions():
    decoder = _decoder(PLAIN, dtype=jnp.bfloat16)
    features = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), _features())
    out, variables = jax.eval_shape(
        decoder.init_with_output, jax.random.key(0), features, _valid(3)
    )
    assert {x.dtype for x in jax.tree.leaves((out, variables))} == {jnp.dtype("f4")}
    assert out.class_logits.shape == (4, 1, QUERIES, 5)
    assert out.mask_embeds.shape == (4, 1, FRAMES, QUERIES, DIM)


@pytest.fixture(scope="module")
def everything():
    """Parameters for all options, one layer, and the result without the changes."""
    variables, _ = _setup(PLAIN | {"type_embed": True}, layers=1)
    features, valid = _features(), _valid(3)
    plain = jax.jit(_decoder(PLAIN, layers=1).apply)(variables, features, valid)
    return variables, features, valid, plain


@pytest.mark.parametrize("option", [name for name in PLAIN if name != "remat"])
def test_each_option_changes_the_masks(everything, option):
    variables, features, valid, plain = everything
    other = _decoder(PLAIN | {option: not PLAIN[option]}, layers=1)
    found = jax.jit(other.apply)(variables, features, valid)
    difference = np.abs(np.asarray(found.mask_embeds) - np.asarray(plain.mask_embeds))
    # The first prediction is made before any frame is seen. Options of the clip update
    # show in the classes after it.
    assert difference[0].max() == 0
    classes = np.asarray(found.class_logits[1]) - np.asarray(plain.class_logits[1])
    assert max(difference[1].max(), np.abs(classes).max()) > 1e-3

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.recipes import changed, recipe
from tests.systems.contract import (
    check_frame_by_frame,
    check_learns,
    check_system,
    first_batch,
)
from vis_jax.structures import Clip
from vis_jax.systems.videomt import build, build_model
from vis_jax.systems.videomt_loss import draw_limited, draw_scale, limited_share
from vis_jax.systems.videomt_model import Model
from vis_jax.systems.videomt_settings import MaskedAttention

_LEAST = {
    "model.backbone.dim": 16, "model.backbone.depth": 2, "model.backbone.heads": 2,
    "model.decoder.blocks": 1, "model.queries": 6, "loss.points": 16,
    "model.remat": False,
}  # fmt: skip


def _config(changes=None, name="videomt_shapes", arg="debug"):
    return recipe(name, arg, _LEAST | (changes or {}))


def test_keeps_the_contract_of_systems_and_frames_come_one_by_one():
    config = _config({"test.mode": "clip", "test.objects": 3, "test.chunk": 1})
    checked = check_system(build, config)
    assert checked.predictions.slots.shape[1] == 3
    check_frame_by_frame(checked)
    check_learns(checked, updates=20, rate=0.1, mean_of=4)


def test_the_training_of_images_has_masked_attention_until_it_ends():
    masked = dict(start=(0,), end=(4,))
    changes = {"model.masked_attention": masked, "loss.aux_last": False}
    config = _config(changes, "eomt")
    system, batch = build(config), first_batch(config)
    variables = compiled(system.init)(jax.random.key(0), batch)
    loss = compiled(system.loss)
    never = changed(config, {"model.masked_attention": dict(start=(), end=())})

    def at(step):
        progress = {"progress": {"step": np.int32(step)}}
        return loss({**variables, **progress}, batch, jax.random.key(1))[0]

    begun, ended = at(0), at(4)
    assert np.isfinite(begun)
    assert begun != ended
    assert at(7) == ended
    plain = compiled(build(never).loss)(variables, batch, jax.random.key(1))[0]
    np.testing.assert_allclose(ended, plain, rtol=1e-5)


def test_early_predictions_do_not_change_masked_attention():
    """Masks are of normalised tokens, early predictions only with `early_norm`."""
    config = _config({"loss.aux_norm": False})
    model = build_model(config)
    normed = [model.clone(norm_queries=True), model.clone(early_norm=True)]
    images = np.asarray(first_batch(config).images[:1, 0], np.float32)
    variables = compiled(model.init)(_key(), images)
    norm = variables["params"]["backbone"]["norm"]
    norm["bias"] = np.random.default_rng(0).normal(size=16).astype(np.float32)

    @compiled
    def found(variables, images):
        tokens = model.apply(variables, images, method=Model.encode)
        grid = model.backbone.grid(*images.shape[1:3])
        first = model.apply(variables, 1, method=Model.first)

        def look(model, early):
            masked = jnp.ones((1, 1, 6), bool)
            return model.apply(
                variables, first, tokens, grid, early, masked, method=Model.look
            )

        bare = [look(model, range(count)) for count in (0, 1)]
        return bare, [look(one, range(1)) for one in normed]

    (without, bare), (by_queries, by_setting) = found(variables, images)
    assert without.early == ()
    np.testing.assert_allclose(bare.queries, without.queries, atol=1e-6)
    for a, b, other in zip(
        by_queries.early[0], by_setting.early[0], bare.early[0], strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert np.abs(a - other).max() > 1e-3


def test_a_decoder_of_its_own_takes_the_tokens_after_its_levels():
    depth, own = "model.backbone.depth", dict(kind="own", blocks=1, levels=(0, 2))
    model = build_model(_config({depth: 3, "model.decoder": own}))
    images = np.random.default_rng(0).normal(size=(1, 32, 48, 3)).astype(np.float32)

    @compiled
    def both(key, images):
        variables = model.init(key, images)
        return (
            model.apply(variables, images, method=Model.encode_levels),
            model.apply(variables, images, method=_levels),
        )

    found, expected = both(_key(), images)
    for index, tokens in enumerate(expected):
        np.testing.assert_allclose(found[:, index], tokens, atol=1e-5)


def _levels(model, images):
    """Tokens after block 0, and after blocks 0 to 2, each from the images on."""
    tokens, backbone = model.backbone.embed(images), model.backbone
    return [backbone.norm(backbone.run(tokens, range(n))) for n in (1, 3)]


def test_fewer_and_fewer_queries_are_limited():
    masking = MaskedAttention(start=(10, 20, 30), end=(20, 40, 30))
    share = compiled(limited_share, static_argnums=0)
    np.testing.assert_array_equal(share(masking, np.int32(9)), [1, 1, 1])
    np.testing.assert_allclose(share(masking, np.int32(15)), [0.5**0.9, 1, 1])
    np.testing.assert_allclose(share(masking, np.int32(30)), [0, 0.5**0.9, 0])
    np.testing.assert_array_equal(share(masking, np.int32(40)), [0, 0, 0])
    draw = compiled(draw_limited, static_argnums=(2, 3))
    drawn = draw(jax.random.key(0), np.float32([0, 0.3, 1]), (4, 5), 200)
    assert drawn.shape == (4, 5, 3, 200)
    assert not drawn[..., 0, :].any()
    assert drawn[..., 2, :].all()
    assert abs(drawn[..., 1, :].mean() - 0.3) < 0.03


def test_the_scale_of_positions_is_as_often_above_1_as_below():
    assert draw_scale(_key(), 1.0) is None
    draw = compiled(jax.vmap(lambda key: draw_scale(key, 2.0)))
    drawn = np.log2(draw(jax.random.split(_key(), 400)))
    assert drawn.min() < -0.95 and 0.95 < drawn.max() <= 1
    assert abs(drawn.mean()) < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.decoder.blocks": 3}, "decoder.blocks: expected at most the 2 blocks"),
        (
            {"model.masked_attention": dict(start=(1, 2), end=(3, 4))},
            r"masked_attention.start: expected an update for each of 1 query blocks",
        ),
        (
            {"model.masked_attention": dict(start=(1,), end=())},
            "masked_attention.end: expected as many updates as start, 1, got 0",
        ),
        (
            {"model.masked_attention": dict(start=(2,), end=(1,))},
            "masked_attention.end: expected none before start",
        ),
        (
            {"model.updater": "identity", "model.propagation": "gru"},
            "updater: expected 'random' with model.propagation 'gru'",
        ),
        ({"test.quality": True, "test.mode": "clip"}, "quality: expected False"),
        ({"model.backbone.heads": 3}, "heads: expected a number that shares 16"),
        ({"model.backbone.rescale": 2.0}, "rescale: expected 1 with form 'dinov2'"),
        (
            {
                "model.backbone.rescale": 2.0,
                "model.backbone.form": "dinov3",
                "model.decoder": dict(kind="own", blocks=1, levels=(1,)),
            },
            "backbone.rescale: expected 1 with decoder.kind 'own'",
        ),
    ],
)
def test_settings_that_do_not_fit_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        _config(changes)


def test_a_canvas_that_patches_do_not_fill_is_an_error():
    with pytest.raises(ValueError, match=r"data.canvas: .* of 28 pixels, .*\(64, 96\)"):
        _shapes({"model.backbone.patch": 14})


def test_patches_of_14_pixels_have_masks_at_stride_7():
    recipes = (("videomt", "debug,patch=14"), ("lvmt", "debug,patch=14"))
    for name, arg in recipes:
        _, _, found = _shapes(name=name, arg=arg)
        assert found.mask_logits.shape == (2, 6, 56 // 7, 84 // 7)
    assert build(_config(name=name, arg=arg)).window.multiple == 28
    assert recipe("videomt", "patch=14").data.canvas == (784, 784)
    assert recipe("eomt", "patch=14").model.backbone.table == 37


def _shapes(changes=None, **kind):
    config = _config(changes, **kind)
    system, batch = build(config), first_batch(config)
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    loss, aux = jax.eval_shape(system.loss, variables, batch, jax.random.key(0))
    assert loss.dtype == jnp.float32
    clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
    state, found = jax.eval_shape(system.step, variables, system.start(clip), clip)
    # The program of the next clip is that of this one.
    assert state == jax.eval_shape(system.start, clip)
    return variables, aux, found


@pytest.mark.parametrize("form", ["dinov2", "dinov3"])
def test_bfloat16_computes_without_hidden_promotion(form):
    """Traced under strict promotion: a mix of dtypes would be an error."""
    masked = dict(start=(1,), end=(2,))
    changes = {"compute_dtype": "bfloat16", "model.backbone.form": form}
    changes |= {"model.masked_attention": masked, "model.norm_queries": True}
    variables, _, found = _shapes(changes)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert found.mask_logits.dtype == jnp.float32
    assert found.slots.shape == (2, 6)


@pytest.mark.parametrize(
    "change",
    [
        {"model.norm_queries": True},
        {"model.sees": "canvas"},
        {"model.remat": True},
        {"model.backbone.remat": True},
        {"loss.matching": "frame"},
        {"loss.absent_class": "no_object"},
        {"loss.aux_norm": True},
        {"loss.aux_last": False},
        {"loss.carry_matching": False},
    ],
    ids=str,
)
def test_every_switch_changes_the_training(change):
    before = {"model.remat": False, "loss.aux_norm": False, "loss.chunk": 1}
    assert _program(before) == _program(before | {"loss.points": 16})  # as it was
    assert _program(before) != _program(before | change)


def test_the_scale_of_positions_reaches_the_encoder_and_the_query_blocks():
    config = _config({"model.backbone.form": "dinov3"})
    model, images = build_model(config), first_batch(config).images[:, 0]
    images = np.asarray(images, np.float32)
    variables = compiled(model.init)(_key(), images)
    grid = model.backbone.grid(*images.shape[1:3])

    @compiled
    def found(variables, images, encoder, blocks):
        first = model.apply(variables, len(images), method=Model.first)
        tokens = model.apply(variables, images, scale=encoder, method=Model.encode)
        looked = model.apply(
            variables, first, tokens, grid, scale=blocks, method=Model.look
        )
        return looked.queries

    def queries(encoder, blocks):
        return found(variables, images, encoder, blocks)

    one, wide = np.float32(1), np.float32(1.5)
    plain = queries(None, None)
    np.testing.assert_allclose(queries(one, one), plain, atol=1e-6)
    assert (queries(wide, None) != plain).any()
    assert (queries(None, wide) != plain).any()


def test_the_scale_of_positions_is_drawn_in_training_alone():
    form, rescale = "model.backbone.form", "model.backbone.rescale"
    configs = [_config({form: "dinov3", rescale: most}) for most in (1.0, 2.0)]
    systems, batch = [build(config) for config in configs], _batch()
    variables = compiled(lambda *x: dict(systems[0].init(*x)))(_key(), batch)
    losses = [compiled(one.loss)(variables, batch, _key())[0] for one in systems]
    assert losses[0] != losses[1]
    clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
    # The same program has the same results.
    steps = [
        _text(jax.make_jaxpr(one.step)(variables, one.start(clip), clip))
        for one in systems
    ]
    assert steps[0] == steps[1]


@functools.cache
def _batch():
    return first_batch(_config())


def _program(changes) -> str:
    return _traced(tuple(changes.items()))


@functools.cache
def _traced(changes) -> str:
    """The loss of a config as JAX traces it."""
    system = build(_config(dict(changes)))
    shapes = jax.eval_shape(lambda *x: dict(system.init(*x)), _key(), _batch())
    return _text(jax.make_jaxpr(system.loss)(shapes, _batch(), _key()))


def _text(program) -> str:
    return re.sub("0x[0-9a-f]+", "", str(program))  # where functions are in memory


def _key():
    return jax.random.key(0)

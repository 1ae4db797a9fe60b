import jax
import jax.numpy as jnp
import pytest

from tests.recipes import changed, recipe
from tests.systems.contract import check_padding, check_system, first_batch
from vis_jax.structures import Clip
from vis_jax.systems.ifr import build, build_model


def _config(decoder, changes=None):
    small = {"model.mask_decoder.layers": 1, "model.mask_decoder.queries": 5}
    small["loss.points"] = 16
    if decoder == "ifr":
        # Large recipes recompute frames beyond two in the backward pass.
        small["model.mask_decoder.remat"] = True
    return recipe("ifr_shapes", f"debug,decoder={decoder}", small | (changes or {}))


@pytest.mark.parametrize("decoder", ["ifr", "m2f_vis"])
def test_keeps_the_contract_of_systems(decoder):
    # The clips of the contract have two frames, and three with padding: so features
    # made a few frames at a time are held against those made at once.
    config = _config(decoder, {"test.chunk": 2})
    checked = check_system(build, config)
    check_padding(checked)
    found = checked.predictions
    assert found.valid.shape == (config.model.mask_decoder.queries,)
    assert found.valid.all()


def test_bfloat16_computes_without_hidden_promotion():
    """Traced under strict promotion: a mix of dtypes would be an error."""
    config = _config("ifr", {"compute_dtype": "bfloat16"})
    system, batch = build(config), first_batch(config)
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    loss, _ = jax.eval_shape(system.loss, variables, batch, jax.random.key(0))
    assert loss.dtype == jnp.float32
    clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
    for mode in ("video", "clip"):
        system = build(changed(config, {"test.mode": mode}))
        state, found = jax.eval_shape(system.step, variables, system.start(clip), clip)
        assert found.mask_logits.dtype == jnp.float32
        shapes = jax.eval_shape(system.start, clip)
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, shapes)
    model = build_model(config)
    out, features = jax.eval_shape(
        lambda v, b: model.apply(v, b.images, b.sizes, b.frame_valid, False),
        variables,
        batch,
    )
    assert features.mask_features.dtype == jnp.bfloat16
    assert out.mask_embeds.dtype == jnp.float32


@pytest.mark.parametrize("decoder", ["ifr", "m2f_vis"])
def test_mask_features_may_have_channels_of_their_own(decoder):
    width = "model.{}.mask_dim"
    changes = {width.format(part): 12 for part in ("pixel_decoder", "mask_decoder")}
    config = _config(decoder, changes)
    system, batch = build(config), first_batch(config)
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    params = variables["params"]
    assert params["pixel_decoder"]["mask_features"]["kernel"].shape[-1] == 12
    mlp = params["decoder"]["heads"]["mask_embed"]
    assert mlp["layers_2"]["kernel"].shape == (config.model.mask_decoder.dim, 12)
    jax.eval_shape(system.loss, variables, batch, jax.random.key(0))
    clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
    for mode in ("video", "clip"):
        system = build(changed(config, {"test.mode": mode}))
        state, _ = jax.eval_shape(system.step, variables, system.start(clip), clip)
        shapes = jax.eval_shape(system.start, clip)
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, shapes)
    with pytest.raises(ValueError, match="mask_decoder.mask_dim: expected 16, as the"):
        changed(config, {width.format("pixel_decoder"): 16})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model.mask_decoder.kind", "detr"),
        ("model.backbone.name", "vgg"),
        ("loss.kind", "hinge"),
    ],
)
def test_an_unknown_choice_is_an_error(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected one of .* got '{value}'"):
        _config("ifr", {field: value})


def test_cross_frame_loss_needs_queries_of_frames():
    with pytest.raises(ValueError, match=r"loss.cross_frame: expected 0.0"):
        _config("m2f_vis", {"loss.cross_frame": 0.3})


def test_no_classes_are_an_error():
    with pytest.raises(ValueError, match=r"model.num_classes: expected at least 1"):
        build(_config("ifr", {"model.num_classes": 0}))

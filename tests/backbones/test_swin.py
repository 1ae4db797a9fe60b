import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.cases import load, nchw, nhwc
from vis_jax.backbones.swin import Block, Settings, Swin
from vis_jax.converters.load import convert_tensors
from vis_jax.params import flatten
from vis_jax.settings import read_settings


def test_matches_stored_outputs_at_a_size_nothing_divides():
    case = load("backbone_swin_tiny")
    images = jnp.asarray(nhwc(case.arrays["2/image"]))
    model = Swin("tiny")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    tree = {"params": {"backbone": shapes["params"]}}
    variables, report = convert_tensors(case.weights(), tree, "swin")
    assert not report.new
    params = {"params": variables["params"]["backbone"]}
    for name, x in jax.jit(model.apply)(params, images).items():
        case.check(f"2/{name}", nchw(x))


@pytest.mark.parametrize(
    ("variant", "millions"),
    [("tiny", 27.52), ("small", 48.84), ("base", 86.88), ("large", 195.20)],
)
def test_has_as_many_parameters_as_published(variant, millions):
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    model = Swin(variant, dtype=jnp.bfloat16, remat=True)
    features, variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), images
    )
    count = sum(leaf.size for leaf in flatten(variables["params"]).values())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)
    dim = features["res2"].shape[-1]
    assert features["res5"].shape == (1, 2, 2, 8 * dim)


def test_remat_changes_nothing_and_drop_path_acts_in_training_only():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 8)), jnp.float32)
    block = dict(heads=2, window=4, shift=2, drop_path=0.5, dtype=jnp.float32)
    variables = jax.jit(Block(**block).init, static_argnums=2)(
        jax.random.key(0), x, False
    )

    def run(kind, train):
        rngs = {"drop_path": jax.random.key(3)}
        apply = jax.jit(kind(**block).apply, static_argnums=2)
        return apply(variables, x, train, rngs=rngs)

    test = run(Block, False)
    remat = run(nn.remat(Block, static_argnums=2), False)
    np.testing.assert_allclose(test, remat, atol=1e-6)
    assert not np.allclose(test, run(Block, True), atol=1e-3)


def test_sizes_of_its_own_stand_beside_the_variants():
    def shapes(model):
        images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        found = jax.eval_shape(model.init, jax.random.key(0), images)
        return jax.tree.map(jnp.shape, found)

    own = dict(dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12)
    assert shapes(Swin("tiny", **own)) == shapes(Swin("base"))
    settings = read_settings(Settings, dict(variant="tiny", depths=[1, 1, 2, 1]))
    assert settings.depths == (1, 1, 2, 1)
    assert settings.dim is None


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (dict(depths=[2, 2, 6]), "depths: expected a number for each of 4 stages"),
        (dict(heads=[3, 6, 12, 24, 48]), "heads: expected a number for each of 4"),
        (dict(heads=[3, 6, 12, 25]), "heads: expected divisors of 768.* stage 3"),
        (dict(dim=100), "heads: expected divisors of 100"),
        (dict(depths=[2, 0, 6, 2]), "depths: expected"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(values, match):
    with pytest.raises(ValueError, match=match):
        read_settings(Settings, values)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.cases import load, nchw, nhwc
from vis_jax.backbones.swin import Block, Swin
from vis_jax.converters.load import convert_tensors
from vis_jax.params import flatten


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

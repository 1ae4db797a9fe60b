"""Sharded parameters are gathered where they are used; test_sharding.py trains so."""

import jax
import jax.numpy as jnp

from vis_jax.structures import LossAux
from vis_jax.training.dry_run import batch_shapes
from vis_jax.training.gather import gathering
from vis_jax.training.sharding import everywhere, make_mesh

KERNELS = {"a": (3, 40), "b": (40, 50)}
SIZES = {120, 2000}  # of these, and of no other array
PARAMS = {name: jax.ShapeDtypeStruct(x, jnp.float32) for name, x in KERNELS.items()}


def two_layers(variables, batch, rng):
    """Multiplies the mean colours of two clips with both kernels, in bfloat16."""
    x = batch.images.astype(jnp.bfloat16).mean((1, 2, 3))
    for kernel in variables["params"].values():
        x = jnp.tanh(x @ kernel.astype(jnp.bfloat16))
    return x.astype(jnp.float32).sum(), LossAux({}, {}, {})


def kept(loss):
    """Returns the sizes of the arrays that the backward pass of a loss needs."""
    batch = batch_shapes(B=2, T=1, M=1, H=6, W=6)

    def stored(params, batch):
        def of(params):
            return loss({"params": params}, batch, jax.random.key(0))[0]

        pullback = jax.vjp(of, params)[1]
        given = {id(leaf) for leaf in jax.tree.leaves((params, batch))}
        return [x for x in jax.tree.leaves(pullback) if id(x) not in given]

    return {x.size for x in jax.eval_shape(stored, PARAMS, batch)}


def test_no_gathered_parameter_is_kept_for_the_backward_pass():
    mesh = make_mesh()

    def at_once(variables, *more):
        return two_layers(everywhere(variables, mesh), *more)

    assert kept(at_once) & SIZES == {2000}  # the first kernel has no gradient below it
    assert kept(gathering(two_layers, mesh, PARAMS)) == kept(at_once) - SIZES

"""A small propagation branch, its parameters and inputs."""

import functools
from typing import NamedTuple

import flax
import jax
import numpy as np

from tests.compiled import compiled
from vis_jax.association.propagation import MaskPropagation, Settings

SIZE, CHANNELS, DIM = (6, 7), 5, 4


class Seen(NamedTuple):
    """All that a pair of frames gives, from one program."""

    masks: np.ndarray
    attention: np.ndarray  # of the other frame
    offsets: np.ndarray
    still: np.ndarray  # offsets from the centre frame to itself
    taps: np.ndarray


@functools.cache
def see_pair(model):
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
def run_compiled(model):
    """Compiled (variables, centre, other, masks, valid) -> masks."""
    return compiled(model.apply)


def small_model(**settings):
    small = dict(dim=DIM, dilations=(1, 2), chunk=16) | settings
    return MaskPropagation(Settings(**small), CHANNELS)


def init_shapes(model, instances=3, size=SIZE):
    maps = np.zeros((*size, model.channels), np.float32)
    masks = np.zeros((instances, *size), np.float32)
    key = jax.random.key(0)
    return jax.eval_shape(model.init, key, maps, maps, masks, np.ones(instances, bool))


def random_params(model, seed=0):
    """Values unlike those of a fresh module: offsets of about a cell."""
    rng = np.random.default_rng(seed)
    shapes = init_shapes(model)["params"]
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * 0.4).astype(np.float32), shapes
    )


@functools.cache
def fresh_params(model):
    """Parameters as they are initialised."""
    values = compiled(model.init)(jax.random.key(0), *make_inputs())
    return flax.traverse_util.flatten_dict(values["params"], sep="/")


def changed_params(model, **values):
    """Fresh parameters but for these, by path with "__" for "/"."""
    params = dict(fresh_params(model))
    for path, value in values.items():
        path = path.replace("__", "/")
        params[path] = np.broadcast_to(
            np.asarray(value, np.float32), params[path].shape
        )
    return {"params": flax.traverse_util.unflatten_dict(params, sep="/")}


def make_inputs(instances=3, size=SIZE, seed=1):
    rng = np.random.default_rng(seed)
    centre, other = rng.normal(size=(2, *size, CHANNELS)).astype(np.float32)
    masks = rng.random((instances, *size)).astype(np.float32)
    return centre, other, masks, np.ones(instances, bool)

import functools
import math

import jax
import numpy as np
import pytest

from tests.association import literal_propagation as literal
from tests.compiled import compiled
from vis_jax.association.propagation import Propagation, Settings

SIZE, CHANNELS, DIM = (6, 7), 5, 4


@functools.cache
def _run(model, method="__call__"):
    return compiled(functools.partial(model.apply, method=method))


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


def _inputs(instances=3, size=SIZE, seed=1):
    rng = np.random.default_rng(seed)
    centre, other = rng.normal(size=(2, *size, CHANNELS)).astype(np.float32)
    masks = rng.random((instances, *size)).astype(np.float32)
    return centre, other, masks, np.ones(instances, bool)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fuse": "linear", "norm": "none"},
        {"fuse": "norm_relu", "null_slot": True, "chunk": 1000},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "default",
)
def test_matches_the_definition_cell_by_cell(settings):
    model = _model(**settings)
    params = _random_params(model)
    centre, other, masks, valid = _inputs()
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


def test_size_of_the_branch_of_the_paper():
    shapes = _init(Propagation(Settings(), 256), size=(8, 8))["params"]
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == 2_310_146

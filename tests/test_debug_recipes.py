"""Every recipe shrunk by `:debug` takes a finite loss."""

import functools
import json

import jax
import numpy as np
import pytest

from configs import common
from tests.evaluate.drawn import draw
from tests.recipes import NAMES, recipe
from tests.systems.contract import first_batch
from vis_jax.commands.run_settings import read_run
from vis_jax.settings import to_dict
from vis_jax.systems import SYSTEMS
from vis_jax.training.initial import check_rules


@functools.cache
def _debug_loss(text: str) -> tuple[dict[str, float], dict]:
    """Terms of the loss, and shapes of the variables, of settings.

    They are given as JSON so that equal ones run once.
    """
    run = read_run(json.loads(text))
    system, batch = SYSTEMS[run.system].build(run), first_batch(run)
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
    loss, aux = jax.jit(system.loss)(
        draw(shapes, 0, norms=0.0), batch, jax.random.key(1)
    )
    terms = {"loss": float(loss)} | {k: float(v) for k, v in aux.terms.items()}
    return terms, shapes


# Most recipes of a system differ by these fields and by numbers alone. They get one
# value, so that their losses compile once; tests of the systems cover the others.
_SAME = {
    "data.flip_per": "clip",
    "test.clip_length": 5,
    "model.backbone.norm": "frozen_stats",
    "model.rpn.scale": 8.0,
    "model.pixels": "vgg",
    "model.dropout": 0.1,
    "model.hab.use_cls_projector": True,
    "loss.refined": 4,
}


def _make_alike(config: dict) -> None:
    same = dict(_SAME)
    if config["system"] == "mask_prop":
        same["model.track_head.width"] = 32
    for path, value in same.items():
        *parents, name = path.split(".")
        node = config
        for parent in parents:
            node = node.get(parent, {})
        if name in node:
            node[name] = value


@pytest.mark.parametrize("name", NAMES)
def test_debug_takes_a_finite_loss(name):
    run = recipe(name)
    config = to_dict(run)
    # The loss does not depend on these, so that equal systems compile once.
    for unused in ("optimizer", "train", "init_from", "init_fresh"):
        config.pop(unused)
    config["data"].update(loader="numpy", split="train", flip=0.5, colour=0.0)
    if isinstance(config["test"].get("score"), float):  # a threshold
        config["test"]["score"] = 0.05
    _make_alike(config)
    if config["data"]["name"] == "folder":  # of which there is none
        config["data"].update(name="moving_shapes", root="", held_out_share=0.0)
        config["model"]["num_classes"] = common.NUM_CLASSES["moving_shapes"]
        config["test"]["split"] = "val"
    config["test"].update(chunk=1, top=1)
    terms, variables = _debug_loss(json.dumps(config, sort_keys=True))
    check_rules(run, variables)
    total = terms["loss"]
    assert np.isfinite(list(terms.values())).all(), terms
    assert total > 0
    np.testing.assert_allclose(sum(terms.values()), 2 * total, rtol=1e-5)

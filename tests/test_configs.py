"""Every config builds, at full size by shapes alone, and takes a loss when shrunk."""

import functools
import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_pipeline.clip_config import read_clip_config
from ml_collections import ConfigDict
from vis_jax.trackers.settings import read_settings

from configs import common
from data_pipeline.datasets import make_dataset
from tests.systems.contract import first_batch
from vis_jax.params import flatten, match_rules
from vis_jax.structures import Batch
from vis_jax.systems import SYSTEMS
from vis_jax.trackers import TRACKERS, deep_sort
from vis_jax.train import optimizer as optimizers

ROOT = Path(__file__).parents[1]
NAMES = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if path.stem not in ("__init__", "common")
)

# Millions of parameters that a gradient reaches, with 100 queries (200 for the
# Swin-L baseline) and 40 classes (41 outputs with the baseline's softmax): those of the
# published backbones and Mask2Former-VIS models.
MILLIONS = {
    "ifr_r50": {"backbone": 23.45, "decoder": 28.68},
    "mask2former_vis_r50": {"backbone": 23.45, "decoder": 14.47, "": 43.96},
    "ifr_r101": {"backbone": 42.39, "decoder": 28.68},
    "ifr_swint": {"backbone": 27.52, "decoder": 28.68},
    "ifr_swins": {"backbone": 48.84, "decoder": 28.68},
    "ifr_swinb": {"backbone": 86.88, "decoder": 28.68},
    "ifr_swinl": {"backbone": 195.20, "decoder": 28.68},
    "mask2former_vis_r101": {"": 62.90},
    "mask2former_vis_swint": {"": 47.41},
    "mask2former_vis_swins": {"": 68.73},
    "mask2former_vis_swinb": {"": 106.89},
    "mask2former_vis_swinl": {"": 215.51},
}


def _get_config(name: str, arg: str | None = None) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(arg)


@functools.cache
def _shapes(name: str) -> dict:
    """Variables of the full-size model, as shapes."""
    config = _get_config(name)
    # A folder of the user's own brings its classes.
    config.model.num_classes = config.model.num_classes or 3
    shapes = dict(
        images=((1, 1, 64, 64, 3), "uint8"),
        frame_valid=((1, 1), bool),
        sizes=((1, 2), "int32"),
        masks=((1, 1, 1, 64, 64), bool),
        boxes=((1, 1, 1, 4), "float32"),
        present=((1, 1, 1), bool),
        labels=((1, 1), "int32"),
        track_ids=((1, 1), "int32"),
        instance_valid=((1, 1), bool),
    )
    batch = Batch(**{k: jax.ShapeDtypeStruct(*shape) for k, shape in shapes.items()})
    system = SYSTEMS[config.system](config)
    return dict(jax.eval_shape(system.init, jax.random.key(0), batch))


def _filled(shapes: dict) -> dict:
    """Plausible values without compiling the model's own: small, and norms near 1."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        ones = path[-1].key in ("scale", "var")
        noise = rng.normal(size=x.shape) / np.sqrt(max(x.size / x.shape[-1], 4))
        return (ones + (not ones) * noise).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def _debug_loss(text: str) -> dict[str, float]:
    """Terms of the loss of a config, given as JSON so that equal ones run once."""
    config = ConfigDict(_tuples(json.loads(text)))
    system, batch = SYSTEMS[config.system](config), first_batch(config)
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
    loss, aux = jax.jit(system.loss)(_filled(shapes), batch, jax.random.key(1))
    return {"loss": float(loss)} | {k: float(v) for k, v in aux.terms.items()}


def _tuples(value):
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_debug_takes_a_finite_loss(name):
    config = _get_config(name, "debug").to_dict()
    # What the loss does not depend on, so that equal systems compile once.
    for unused in ("num_steps", "optimizer", "train", "init_from", "init_fresh"):
        config.pop(unused)
    config["data"].update(loader="numpy", split="train", flip=0.5, colour=0.0)
    config["test"].update(chunk=1, top=1)
    terms = _debug_loss(json.dumps(config, sort_keys=True))
    total = terms["loss"]
    assert np.isfinite(list(terms.values())).all(), terms
    assert total > 0
    np.testing.assert_allclose(sum(terms.values()), 2 * total, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_full_size_builds_with_the_parameters_published(name):
    params = flatten(_shapes(name)["params"])
    assert all(x.dtype == jnp.float32 for x in params.values())
    for part, millions in MILLIONS.get(name, {}).items():
        count = sum(x.size for path, x in params.items() if path.startswith(part))
        assert round(count / 1e6, 2) == millions, f"{part or 'whole'}: {count}"


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("mask_track_rcnn_r50", 23_508_032), ("mask_track_rcnn_r101", 42_500_160)],
)
def test_mask_track_rcnn_has_the_parameters_of_the_released_code(name, backbone):
    params = _shapes(name)["params"]
    counts = {
        part: sum(x.size for x in jax.tree.leaves(tree))
        for part, tree in params.items()
    }
    assert counts == {
        "backbone": backbone,
        "fpn": 3_344_384,
        "rpn": 593_935,
        # Here the background has no box, 4 x 1025, and no mask, 257.
        "box_head": 14_105_805 - 4 * 1025,
        "mask_head": 2_633_257 - 257,
        "track_head": 13_895_680,
    }


def test_mask_track_rcnn_freezes_the_stem_and_the_first_stage():
    config = _get_config("mask_track_rcnn_r50")
    rates = match_rules(
        _shapes("mask_track_rcnn_r50")["params"], config.optimizer.rates
    )
    frozen = {path for path, rate in flatten(rates).items() if rate == 0.0}
    blocks = {path.split("/")[1] for path in frozen}
    assert blocks == {"stem", "res2_0", "res2_1", "res2_2"}
    # Kernel, scale and bias of the stem, of three convolutions and a shortcut.
    assert len(frozen) == 3 * (1 + 3 * 3 + 1)


@pytest.mark.parametrize("name", sorted({*TRACKERS, *common.TRACKERS}))
def test_every_tracker_has_settings(name):
    module = importlib.import_module(f"vis_jax.trackers.{name}")
    read_settings(name, module.Settings, common.TRACKERS[name])


def test_deep_sort_has_the_settings_for_short_videos():
    values = common.TRACKERS["deep_sort"]
    assert read_settings("", deep_sort.Settings, values) == deep_sort.VIS


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_data_and_optimizer_can_be(name):
    config = _get_config(name)
    read_clip_config(config.data)
    # Raises where a parameter has no rate or no weight decay.
    optimizers.build(
        config.optimizer, num_steps=config.num_steps, params=_shapes(name)["params"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_header_has_the_commands(name):
    text = (ROOT / "configs" / f"{name}.py").read_text()
    run = f"python -m vis_jax.main --config configs/{name}.py"
    assert run in text
    assert f"--config configs/{name}.py:debug" in text
    assert "docs/results.md#" in text


def test_string_arguments_have_the_type_of_their_default():
    arg = common.parse_arg("steps=20,debug", steps=5, debug=False, name="a")
    assert arg.to_dict() == {"steps": 20, "debug": True, "name": "a"}
    assert not common.parse_arg("debug=false", debug=True).debug


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stps=3", "'stps': expected one of"),
        ("steps=many", "steps: expected int, got 'many'"),
        ("debug=perhaps", "debug: expected true or false"),
    ],
)
def test_a_wrong_string_argument_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        common.parse_arg(text, steps=5, debug=False)


def test_an_unknown_data_set_is_an_error():
    with pytest.raises(ValueError, match="dataset: expected one of .*, got 'shapes'"):
        _get_config("ifr_r50", "dataset=shapes")


def test_a_full_recipe_takes_moving_shapes():
    config = _get_config("ifr_r50", "dataset=moving_shapes")
    dataset = make_dataset(config.data, config.test.split)
    assert len(dataset.categories) == config.model.num_classes

"""Every recipe builds, at full size by shapes alone, and has the published size."""

import functools
import json
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from configs import common, ifr
from data_pipeline.datasets.by_name import make_dataset
from tests.recipes import NAMES, recipe
from vis_jax.commands.run_settings import with_classes
from vis_jax.layers.queries import ClipFeatures
from vis_jax.params import flatten, match_rules
from vis_jax.settings import to_dict
from vis_jax.systems import SYSTEMS
from vis_jax.systems.ifr import Model, build_model
from vis_jax.training import optimizer as optimizers
from vis_jax.training.dry_run import batch_shapes
from vis_jax.training.initial import check_rules
from vis_jax.training.sharding import AXES, MeshSettings, param_sharding

ROOT = Path(__file__).parents[1]

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
    # Plain transformers with 200 queries.
    "videomt": {"": 317.65},
    "eomt": {"": 316.64},
    "lvmt": {"backbone": 304.79, "decoder": 42.03, "propagation": 6.30},
}


# Fields of recipes before settings had defaults, and their present places ..
MOVED = (("model.frame_queries.", "model.mask_decoder."),)
# .. or that nothing reads it any more: (field, where that is so).
GONE = (
    # Without a class for no object; of the decoder without queries of frames.
    (r"loss\.no_object", lambda run: run.loss.kind == "focal"),
    (
        r"model\.mask_decoder\.(frame_ffn|mask_clip_group|remat|temporal_position"
        r"|type_embed)",
        lambda run: run.model.mask_decoder.kind == "m2f_vis",
    ),
    # Without effect there, and refused since.
    (r"optimizer\.decay_at", lambda run: run.optimizer.schedule == "cosine"),
    (r"optimizer\.warmup_factor", lambda run: not run.optimizer.warmup_steps),
    # OSMN's network is left out; clips that a tracker reads do not overlap.
    (r"test\.trackers\.osmn(_masks)?\..*", lambda run: run.system != "osmn"),
    # A folder has videos held out, and is what `:debug` reads, too.
    (
        r"test\.split|data\.name|model\.num_classes",
        lambda run: run.data.name == "folder",
    ),
    (
        r"test\.clip_(instances|link|tracks|length|stride)",
        lambda run: run.system != "ifr",
    ),
)


@functools.cache
def _before() -> dict[str, dict]:
    """Fields and values of each recipe, as they were when recipes stated them all."""
    content = json.loads((ROOT / "tests" / "recipes.json").read_text())
    found: dict[str, dict] = {name: {} for name in content["recipes"]}
    for field, values in content["fields"].items():
        for value, numbers in values:
            for part in numbers.split(","):
                first, _, last = part.partition("-")
                for number in range(int(first), int(last or first) + 1):
                    found[content["recipes"][number]][field] = value
    return found


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


@pytest.mark.parametrize("name", sorted(_before()))
def test_recipes_say_what_they_said(name):
    config, _, arg = name.partition(":")
    run = recipe(config, arg or None)
    now = _flat(json.loads(json.dumps(to_dict(run))))
    for field, value in _before()[name].items():
        for old, new in MOVED:
            field = field.replace(old, new)
        gone = [rule for rule in GONE if re.fullmatch(rule[0], field) and rule[1](run)]
        if not gone:
            assert now[field] == value, field


def _shapes(name: str) -> dict:
    """Parameters of the full-size model, as shapes."""
    run = recipe(name, None, {"compute_dtype": "float32"})
    if not run.model.num_classes:  # a folder of the user's own brings its classes
        run = with_classes(run, 3)
    if run.system == "ifr":
        return _shapes_by_part(build_model(run))
    return _shapes_of(run.system, run.model)


@functools.cache
def _shapes_of(system: str, model) -> dict:
    method = SYSTEMS[system]
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    init = method.build(method.settings(model=model)).init
    return dict(jax.eval_shape(init, jax.random.key(0), batch))["params"]


def _shapes_by_part(model: Model) -> dict:
    """Each distinct part is traced once: many recipes share it."""
    clip = jax.ShapeDtypeStruct((1, 1), bool)
    maps, backbone = _traced(model.backbone, _hashed(_floats(1, 64, 64, 3)))
    features, pixels = _traced(model.pixel_decoder, _hashed(maps))
    levels = jax.tree.map(lambda x: _floats(1, *x.shape), features)
    _, decoder = _traced(model.decoder, _hashed(ClipFeatures(*levels)), _hashed(clip))
    return {"backbone": backbone, "pixel_decoder": pixels, "decoder": decoder}


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _hashed(tree) -> tuple:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((x.shape, x.dtype) for x in leaves)


@functools.cache
def _traced(module: nn.Module, *inputs: tuple) -> tuple:
    """Shapes of the output and of the parameters."""
    trees = [
        jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
        for tree, leaves in inputs
    ]
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), *trees)
    return out, dict(variables)["params"]


def test_the_parts_of_a_model_are_those_of_the_whole():
    run = recipe("ifr_r50")  # the parts meet in the same way at any size
    whole = _shapes_of("ifr", run.model)
    assert flatten(_shapes_by_part(build_model(run))) == flatten(whole)


@pytest.mark.parametrize("name", MILLIONS)
def test_full_size_has_the_parameters_published(name):
    params = flatten(_shapes(name))
    assert all(x.dtype == jnp.float32 for x in params.values())
    for part, millions in MILLIONS[name].items():
        count = sum(x.size for path, x in params.items() if path.startswith(part))
        assert round(count / 1e6, 2) == millions, f"{part or 'whole'}: {count}"


@pytest.mark.parametrize(("size", "millions"), [("small", 24.088), ("base", 94.182)])
def test_smaller_videomts_have_the_parameters_published(size, millions):
    run = recipe("videomt", f"size={size}")
    params = flatten(_shapes_of("videomt", run.model))
    assert round(sum(x.size for x in params.values()) / 1e6, 3) == millions


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("mask_track_rcnn_r50", 23_508_032), ("mask_track_rcnn_r101", 42_500_160)],
)
def test_mask_track_rcnn_has_the_parameters_of_the_released_code(name, backbone):
    params = _shapes(name)
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
    rates = recipe("mask_track_rcnn_r50", None).optimizer.rates
    rates = match_rules(_shapes("mask_track_rcnn_r50"), rates)
    frozen = {path for path, rate in flatten(rates).items() if rate == 0.0}
    blocks = {path.split("/")[1] for path in frozen}
    assert blocks == {"stem", "res2_0", "res2_1", "res2_2"}
    # Kernel, scale and bias of the stem, of three convolutions and a shortcut.
    assert len(frozen) == 3 * (1 + 3 * 3 + 1)


def test_iai_trains_what_is_named_after_the_backbone_slower():
    run, params = recipe("iai_condinst_r50", None), _shapes("iai_condinst_r50")
    assert run.optimizer.weight_decay == 1e-4
    rates, decays = (
        flatten(match_rules(params, rules))
        for rules in (run.optimizer.rates, run.optimizer.decays)
    )
    slow = {
        path
        for path in rates
        if path.startswith(("backbone/", "hab/backbone_projector/"))
    }
    assert {path for path in decays if decays[path] != 1.0} == slow
    assert {decays[path] for path in slow} == {0.9}
    frozen = {path for path, rate in rates.items() if rate == 0.0}
    blocks = {tuple(path.split("/")[:2]) for path in frozen}
    first = ("stem", "res2_0", "res2_1", "res2_2")
    assert blocks == {("backbone", block) for block in first}
    assert {rates[path] for path in slow - frozen} == {0.1}
    assert {rates[path] for path in rates.keys() - slow} == {1.0}


@pytest.mark.parametrize(
    ("dataset", "videos", "ids"),
    [("ytvis2019", 2_238, 20), ("ytvis2021", 2_985, 25),
     ("ytvis2022", 2_985, 25), ("ovis", 607, 25)],
)  # fmt: skip
def test_the_schedule_of_iai_has_12_epochs_of_five_clips_a_video(dataset, videos, ids):
    run = recipe("iai_condinst_r50", f"dataset={dataset}")
    assert run.model.ids.count == ids
    epoch = 5 * videos // 16
    optimizer = optimizers.build(run.optimizer, num_steps=run.num_steps, params={})
    at = (0, 500, 8 * epoch - 1, 8 * epoch, 11 * epoch - 1, 11 * epoch)
    found = [float(optimizer.learning_rate(np.int32(update))) for update in at]
    np.testing.assert_allclose(found, [1e-7, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6], rtol=1e-5)
    for other in (recipe("condinst_r50", f"dataset={dataset}"), run):
        assert other.num_steps == 12 * epoch
        assert other.optimizer.decay_at == run.optimizer.decay_at


def test_videomt_learns_slower_from_block_to_block_towards_the_image():
    rates = recipe("videomt", None).optimizer.rates
    for path, rate in flatten(match_rules(_shapes("videomt"), rates)).items():
        part, *rest = path.split("/")
        if part != "backbone" or rest[0] == "norm":
            power = 0
        elif rest[0].startswith("blocks_"):
            power = 23 - int(rest[0].removeprefix("blocks_"))
        else:
            power = 23
        assert rate == pytest.approx(0.6**power), path


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_rule_and_every_rule_a_parameter(name):
    run, params = recipe(name, None), _shapes(name)
    optimizers.build(run.optimizer, num_steps=run.num_steps, params=params)
    check_rules(run, {"params": params})
    _check_divided(params)


def _check_divided(params: dict) -> None:
    """Checks that fsdp=8 divides the longest possible axis of every large array."""
    settings, mesh = MeshSettings(fsdp=8), AbstractMesh((1, 8), AXES)
    found = flatten(param_sharding({"params": params}, mesh, settings)["params"])
    large = {k: x for k, x in flatten(params).items() if x.size >= settings.least}
    for path, leaf in large.items():
        shard = found[path].shard_shape(leaf.shape)
        divided = [n for n, part in zip(leaf.shape, shard, strict=True) if n != part]
        assert divided == [max(n for n in leaf.shape if n % 8 == 0)], path


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
        recipe("ifr_r50", "dataset=shapes")
    with pytest.raises(ValueError, match="backbone: expected one of .*, got 'r18'"):
        ifr.get_config("backbone=r18")


def test_a_full_recipe_takes_moving_shapes():
    config = recipe("ifr_r50", "dataset=moving_shapes")
    dataset = make_dataset(config.data, config.test.split)
    assert len(dataset.categories) == config.model.num_classes

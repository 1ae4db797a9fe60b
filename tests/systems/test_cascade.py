import functools

import jax
import jax.numpy as jnp
import pytest

from tests.recipes import recipe
from tests.systems.contract import (
    Checked,
    check_frame_by_frame,
    check_learns,
    check_system,
    first_batch,
)
from tests.systems.traced import check_dtypes
from vis_jax.detectors.cascade import CascadeFeatures
from vis_jax.structures import LossAux
from vis_jax.systems import cascade
from vis_jax.systems.cascade import build, build_model
from vis_jax.systems.cascade_loss import PairLosses


def _config(changes=None):
    return recipe("cascade_shapes", "track,debug", changes)


@functools.cache
def _checked() -> Checked:
    # No region is large enough to read a coarse level, but the semantic branch does.
    return check_system(build, _config())


def test_keeps_the_contract_of_systems():
    config, found = _config(), _checked().predictions
    assert found.valid.shape == (config.test.tracks,)
    assert found.slots.shape[1] == config.test.objects
    assert (found.slots >= 0).any()


def test_frame_by_frame_equals_the_whole_video():
    check_frame_by_frame(_checked())


def test_updates_bring_the_loss_down():
    check_learns(_checked(), updates=8, rate=0.05, mean_of=3)


def test_bfloat16_computes_without_hidden_promotion():
    check_dtypes(build, _config({"compute_dtype": "bfloat16"}))


def test_each_weight_is_that_of_its_term(monkeypatch):
    names = ("rpn_class", "rpn_box", "box_class", "box", "mask", "semantic", "track")
    weights = {name: float(number) for number, name in enumerate(names, 2)}
    ones = dict.fromkeys(names, jnp.float32(1.0))
    monkeypatch.setattr(cascade, "draw_pair", lambda *_, **__: None)
    found = PairLosses(LossAux(ones, {}, {}), CascadeFeatures((), None, None), ())
    monkeypatch.setattr(cascade, "pair_losses", lambda *_, **__: found)
    config = _config({f"loss.{name}": weight for name, weight in weights.items()})
    loss, aux = build(config).loss({}, first_batch(config), jax.random.key(0))
    assert {name: float(term) for name, term in aux.terms.items()} == weights
    assert float(loss) == sum(weights.values())


def test_the_recipe_has_the_parts_of_the_paper():
    """40 classes, 41 semantic ones, and the head of MaskTrack R-CNN."""
    batch = first_batch(_config())
    system = build(recipe("cascade_r50", "track"))
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)["params"]
    counts = {
        part: sum(x.size for x in jax.tree.leaves(tree))
        for part, tree in shapes.items()
    }
    assert counts.pop("track_head") == 13_895_680
    assert sum(counts.values()) == 80_067_959
    plain = recipe("cascade_r50", "debug").model
    assert (plain.track_head.width, plain.semantic.enabled) == (0, True)


def test_arguments_of_the_recipe():
    run = recipe("cascade", "backbone=x101,deform,track")
    backbone = run.model.backbone
    assert (backbone.variant, backbone.deform_stages) == ("x101_64x4d", (3, 4, 5))
    assert backbone.remat
    assert (run.data.frames, run.data.frame_range) == (2, 25)
    assert (run.test.tracker, run.model.track_head.width) == ("mask_track", 1024)
    plain = recipe("cascade", "dataset=coco")
    assert plain.model.backbone.deform_stages == ()
    assert (plain.data.frames, plain.model.num_classes) == (1, 80)
    assert (plain.test.tracker, plain.model.track_head.width) == ("iou", 0)
    assert (plain.num_steps, plain.optimizer.decay_at) == (147_840, (118_272, 140_448))
    with pytest.raises(ValueError, match="backbone: expected one of .*, got 'r18'"):
        recipe("cascade", "backbone=r18")


def test_settings_say_which_regions_become_objects():
    model = build_model(_config({"test.score": 0.2, "test.nms": 0.4}))
    rule = model.rules.detections
    assert (rule.score_threshold, rule.iou_threshold) == (0.2, 0.4)
    assert (rule.least_side, rule.size) == (0.0, _config().test.objects)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "test.objects",
            129,
            "expected at most 128, the number of NMS candidates",
        ),
        ("model.num_classes", 0, "expected at least 1, got 0"),
        ("model.semantic.classes", 183, r"expected 0 or 9, .* got 183"),
        ("model.stages.weight", (1.0,), "expected 2 numbers"),
        ("model.regions.sampled", 999, "expected at most model.rpn.proposals, 16"),
    ],
)
def test_a_wrong_setting_is_an_error(field, value, message):
    with pytest.raises(ValueError, match=f"{field}: {message}"):
        build(_config({field: value}))


def test_semantic_classes_of_other_data_stay_if_they_are_not_trained():
    build(_config({"model.semantic.classes": 183, "loss.semantic": 0.0}))

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recipes import recipe
from tests.systems.contract import (
    Checked,
    check_frame_by_frame,
    check_learns,
    check_statistics,
    check_system,
    first_batch,
)
from tests.systems.traced import check_dtypes, check_weights
from vis_jax.losses.multibox import MultiboxLosses, PriorRule
from vis_jax.systems import yolact
from vis_jax.systems.yolact import build, build_model, objects_of


def _config(changes=None, name="yolact_shapes"):
    return recipe(name, "debug", changes)


HEAD = {"model.track_head.width": 8}


@functools.cache
def _checked() -> Checked:
    """With all parts: batch norm, and a track head that is trained beside.

    All negatives count, so that every level has a gradient.
    """
    changes = {"loss.negatives": 1_000, "test.tracker": "mask_track", **HEAD}
    return check_system(build, _config(changes, "yolact_r50"))


def test_keeps_the_contract_of_systems():
    config, found = _config(name="yolact_r50"), _checked().predictions
    assert found.valid.shape == (config.test.tracks,)
    assert found.mask_logits.shape[1:] == (config.test.objects, 16, 24)
    assert (found.slots >= 0).any()
    shown = found.mask_boxes[found.slots >= 0]
    np.testing.assert_array_equal(shown, np.tile([0, 0, 96, 64], (len(shown), 1)))


def test_statistics_of_the_batch_are_handed_on_without_padded_frames():
    check_statistics(_checked(), {"backbone"})


def test_frame_by_frame_equals_the_whole_video():
    check_frame_by_frame(_checked())


def test_updates_bring_the_loss_down():
    check_learns(_checked(), updates=10, rate=0.1, mean_of=3)


def test_parameters_of_the_published_detector():
    expected = {"backbone": 23_508_032, "detector": 7_370_031}
    assert _counts(None) == expected
    # That of MaskTrack R-CNN.
    assert _counts("track") == {**expected, "track_head": 13_895_680}


def _counts(arg) -> dict[str, int]:
    init = build(recipe("yolact_r50", arg)).init
    shapes = jax.eval_shape(init, jax.random.key(0), first_batch(_config()))
    return {
        part: sum(x.size for x in jax.tree.leaves(tree))
        for part, tree in shapes["params"].items()
    }


def test_bfloat16_computes_without_hidden_promotion():
    check_dtypes(
        build, _config({"compute_dtype": "bfloat16", "model.dropout": 0.1, **HEAD})
    )


def test_objects_are_those_of_every_frame():
    batch = first_batch(_config({"data.frames": 3, "data.batch_size": 2}))
    valid = np.array([[True, True, False], [True, True, True]])
    found = jax.jit(objects_of)(batch._replace(frame_valid=valid))
    for image, (clip, frame) in enumerate(np.ndindex(2, 3)):
        np.testing.assert_array_equal(found.boxes[image], batch.boxes[clip, :, frame])
        np.testing.assert_array_equal(found.masks[image], batch.masks[clip, :, frame])
        np.testing.assert_array_equal(found.labels[image], batch.labels[clip])
        present = batch.present[clip, :, frame] & batch.instance_valid[clip]
        np.testing.assert_array_equal(found.valid[image], present & valid[clip, frame])
    assert found.valid.any()
    assert not found.crowd.any()


def test_each_weight_is_that_of_its_term_and_each_rule_arrives(monkeypatch):
    rules, least = [], []

    def ones(*_, rule, **__):
        rules.append(rule)
        return MultiboxLosses(*[jnp.float32(1.0)] * 5)

    def one(*_, **given):
        least.append(given["least"])
        return jnp.float32(1.0)

    monkeypatch.setattr(yolact, "multibox_losses", ones)
    monkeypatch.setattr(yolact, "pair_loss", one)
    weights = dict(box_class=2.0, box=3.0, mask=4.0, semantic=5.0, track=6.0)
    rule = dict(positive=0.6, negative=0.3, negatives=4, masks=7)
    changes = {f"loss.{name}": value for name, value in (weights | rule).items()}
    changes |= {**HEAD, "model.track_head.positive": 0.8}
    config = _config(changes)
    aux = check_weights(build(config), config, weights)
    assert set(aux.notes) == {"positives_left_out"}
    assert rules == [PriorRule(**rule)]
    assert least == [0.8]


def test_settings_reach_the_network():
    model = build_model(recipe("yolact_r50", None))
    assert model.detector.dropout == 0.1
    assert model.rule == yolact.YolactRule(0.03, 0.5, 200, 10, True)
    coco = build_model(recipe("yolact_r101", "dataset=coco"))
    assert (coco.priors.divisor, coco.priors.square) == (550.0, True)
    assert coco.rule == yolact.YolactRule(0.05, 0.5, 200, 100, False)
    changes = {"test.score": 0.2, "test.nms": 0.7, "test.objects": 3}
    rule = build_model(_config(changes)).rule
    assert rule == yolact.YolactRule(0.2, 0.7, 200, 3, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.num_classes": 0}, "model.num_classes: expected at least 1, got 0"),
        (
            {"test.objects": 201},
            "test.objects: expected at most 200, as NMS has 200 candidates, got",
        ),
        (
            {"test.objects": 1_601, "test.across_classes": False},
            "test.objects: expected at most 1600, .* candidates of each class, got 16",
        ),
        (
            {"loss.positive": 0.3},
            "loss.negative: expected at most positive, 0.3, got 0.4",
        ),
        ({"loss.negatives": 0}, "loss.negatives: expected int, at least 1, got 0"),
        ({"test.tracker": "sort"}, "test.tracker: expected one of"),
        (
            {"loss.detector": False},
            "loss.detector: expected True without a track head .*, got False",
        ),
        ({"model.track_head.width": -1}, "model.track_head.width: expected int, at"),
    ],
)
def test_a_wrong_setting_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        build(_config(changes))

"""Effects of every setting of IAI, from shapes and rules where possible."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recipes import recipe
from tests.systems.contract import first_batch
from tests.systems.traced import check_weights
from vis_jax.detectors import condinst_losses
from vis_jax.detectors.condinst_ids import IdRule
from vis_jax.detectors.condinst_losses import DiceLoss
from vis_jax.detectors.fcos_targets import TargetRule
from vis_jax.losses.fcos import FcosLosses
from vis_jax.params import flatten
from vis_jax.structures import Batch, Clip
from vis_jax.systems import iai_loss
from vis_jax.systems.iai import build, build_network, video_rules
from vis_jax.systems.system import System
from vis_jax.training.dry_run import batch_shapes


def _config(changes=None, name="iai_condinst_r50"):
    return recipe(name, "debug", changes)


class Traced(NamedTuple):
    """Shapes of a system: of its variables, a batch, and what it computes from it."""

    system: System
    variables: dict
    batch: Batch

    def parameters(self):
        params = flatten(dict(self.variables["params"]))
        return {path: x.shape for path, x in params.items()}

    def terms(self):
        """The terms of the loss."""
        loss, aux = jax.eval_shape(
            self.system.loss, self.variables, self.batch, jax.random.key(0)
        )
        assert loss.shape == ()
        return set(aux.terms)

    def step(self):
        """The state after a step, and what it finds."""
        system, batch = self.system, self.batch
        clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
        state = jax.eval_shape(system.start, clip)
        return jax.eval_shape(system.step, self.variables, state, clip)


def _traced(changes=None):
    config = _config(changes)
    system, batch = build(config), first_batch(config)
    return Traced(system, jax.eval_shape(system.init, jax.random.key(0), batch), batch)


@functools.cache
def _whole():
    return _traced()


def test_without_identities_there_is_no_head_for_them_and_a_bank_of_two():
    traced = _traced({"model.ids.on": False})
    parameters = traced.parameters()
    assert not any("id_tower" in path or "id_logits" in path for path in parameters)
    assert parameters["hab/id_bank/kernel"] == (17, 17, 2, 16)
    assert traced.terms() == {"box_class", "box", "centre", "mask"}
    _, found = traced.step()
    assert found.valid.shape == (4,)  # the objects of a frame


def test_without_identities_a_tracker_may_link_objects():
    state, found = _traced({"model.ids.on": False, "test.link": "iou"}).step()
    assert found.valid.shape == (8,)
    assert state.linked is not None


def test_without_association_there_are_no_memories():
    traced = _traced({"model.association": False})
    parameters = traced.parameters()
    assert not any("hab" in path for path in parameters)
    assert any("id_logits" in path for path in parameters)
    assert "id" in traced.terms()
    state, _ = traced.step()
    assert state.memory is None


@pytest.mark.parametrize(
    ("changes", "gone", "lateral"),
    [
        ({"model.hab.use_local": False}, "local_attention", 64),
        ({"model.hab.use_global": False}, "global_out", 64),
        ({"model.hab.use_cls_projector": False}, "backbone_projector", 32),
    ],
)
def test_parts_of_the_association_that_are_off_are_gone(changes, gone, lateral):
    parameters, whole = _traced(changes).parameters(), _whole().parameters()
    assert not any(gone in path for path in parameters)
    assert set(parameters) == {path for path in whole if gone not in path}
    assert parameters["detector/fpn/lateral4/kernel"] == (1, 1, lateral, 16)


def test_the_id_head_and_the_stage_have_the_shapes_asked_for():
    whole = _whole().parameters()
    assert whole["detector/head/id_logits/kernel"] == (3, 3, 16, 6)
    assert whole["hab/id_bank/kernel"] == (17, 17, 7, 16)
    changes = {"model.ids.convs": 3, "model.ids.loss": "softmax", "model.ids.count": 9}
    parameters = _traced(changes).parameters()
    assert sum("head/id_tower/layers" in path for path in parameters) == 9
    assert parameters["detector/head/id_logits/kernel"] == (3, 3, 16, 10)
    assert parameters["hab/id_bank/kernel"] == (17, 17, 10, 16)
    coarse = _traced({"model.hab.stage": "res5"}).parameters()
    assert coarse["hab/id_bank/kernel"] == (33, 33, 7, 16)
    assert coarse["hab/encoder_projector/kernel"] == (1, 1, 128, 16)


def test_memories_are_as_long_as_asked_for():
    for slots in (5, 3):
        system = build(_config({"model.hab.slots": slots}))
        batch = _whole().batch
        clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
        state = jax.eval_shape(system.start, clip)
        after, _ = jax.eval_shape(system.step, _whole().variables, state, clip)
        for one in (state, after):
            assert one.memory.global_keys.shape[1] == slots


def test_rules_of_the_test_reach_the_network():
    assert build_network(recipe("iai_condinst_r50", None)).rule == IdRule(
        0.1, 0.1, 0.5, 200, 10, "code", "focal"
    )
    assert build_network(recipe("iai_condinst_r101", None)).rule == IdRule(
        0.05, 0.1, 0.5, 1_000, 10, "code", "focal"
    )
    assert build_network(recipe("iai_condinst_r50", "dataset=ovis")).rule.size == 50
    changes = {
        "score": 0.2, "id_score": 0.3, "nms": 0.4, "candidates": 7, "objects": 3,
        "rank": "average",
    }  # fmt: skip
    changed = _config({f"test.{name}": value for name, value in changes.items()})
    rule = IdRule(0.2, 0.3, 0.4, 7, 3, "average", "focal")
    assert build_network(changed).rule == rule
    bce = build_network(_config({"model.ids.loss": "bce"}))
    assert bce.rule.ids == "bce"
    assert build_network(_config()).style == "vgg"
    assert build_network(_config({"model.pixels": "backbone"})).style == "torch"


def test_rules_of_identities_arrive():
    assert video_rules(_config()) == (6, 5, "paper", "all_frames", 0.05)
    changes = {
        "test.capacity": "code", "test.video_score": "detected", "test.least": 0.2,
        "model.ids.count": 9,
    }  # fmt: skip
    assert video_rules(_config(changes)) == (9, 8, "code", "detected", 0.2)
    assert video_rules(_config({"model.ids.on": False}))[:2] == (0, 4)


def test_the_warning_of_lost_objects_names_what_to_raise():
    assert build(_config()).limit == "model.ids.count and train again"
    assert build(_config({"model.ids.on": False})).limit == "test.tracks"


def test_the_work_of_a_frame_of_the_published_size():
    """60.2 GMACs at 384 x 640."""
    system = build(recipe("iai_condinst_r50", None, {"compute_dtype": "float32"}))
    batch = batch_shapes(B=1, T=1, M=1, H=384, W=640)
    shapes = (batch.images, batch.frame_valid, batch.sizes)
    clip = Clip(*(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in shapes))
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    state = jax.eval_shape(system.start, clip)
    lowered = jax.jit(system.step).lower(variables, state, clip)
    flops = lowered.cost_analysis()["flops"]
    np.testing.assert_allclose(flops, 0.1204e12, rtol=0.05)


def test_each_weight_is_that_of_its_term_and_each_rule_arrives(monkeypatch):
    rules, most, kinds = [], [], []
    one = jnp.float32(1.0)
    targets_of = condinst_losses.dense_targets

    def targets(*args, rule, **kwargs):
        rules.append(rule)
        return targets_of(*args, rule=rule, **kwargs)

    def masks(*_, **kwargs):
        most.append(kwargs["most"])
        return DiceLoss(one, one)

    def ids(*_, kind, **__):
        kinds.append(kind)
        return one

    monkeypatch.setattr(condinst_losses, "dense_targets", targets)
    monkeypatch.setattr(
        condinst_losses, "fcos_losses", lambda *_, **__: FcosLosses(*[one] * 3)
    )
    monkeypatch.setattr(condinst_losses, "mask_loss", masks)
    monkeypatch.setattr(iai_loss, "id_loss", ids)
    weights = dict(box_class=2.0, id=6.0, box=3.0, centre=4.0, mask=5.0)
    rule = dict(radius=2.5, ranges=(8.0, 9.0, 10.0, 11.0))
    changes = weights | rule | dict(positives=7)
    changes = {f"loss.{name}": value for name, value in changes.items()}
    config = _config({**changes, "model.ids.loss": "bce"})
    aux = check_weights(build(config), config, weights)
    assert set(aux.notes) == {"positives_left_out", "objects_without_id"}
    assert (set(rules), set(most), set(kinds)) == ({TargetRule(**rule)}, {7}, {"bce"})


@pytest.mark.parametrize("permute", [False, True])
def test_identities_are_ranks_unless_they_are_drawn(monkeypatch, permute):
    keys = []
    named = iai_loss.sequence_ids

    def spy(track_ids, present, *, count, key=None):
        keys.append(key)
        return named(track_ids, present, count=count, key=key)

    monkeypatch.setattr(iai_loss, "sequence_ids", spy)
    loss = build(_config({"loss.permute": permute})).loss
    whole = _whole()
    jax.eval_shape(loss, whole.variables, whole.batch, jax.random.key(0))
    assert [key is not None for key in keys] == [permute]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.num_classes": 0}, "model.num_classes: expected at least 1, got 0"),
        ({"model.ids.count": 1}, "model.ids.count: expected int, 2 .. 254, got 1"),
        ({"model.hab.dim": 64}, "model.hab.dim: expected less than half of 64"),
        (
            {"test.mode": "video", "test.tta": (64,)},
            r"test.tta: expected \(\) for an online system",
        ),
        ({"test.link": "seq"}, "test.link: expected"),
    ],
)
def test_settings_that_do_not_fit_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        system, batch = build(_config(changes)), first_batch(_config())
        jax.eval_shape(system.init, jax.random.key(0), batch)

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.recipes import recipe
from tests.systems.contract import (
    Checked,
    check_frame_by_frame,
    check_learns,
    check_system,
    first_batch,
)
from tests.systems.traced import check_dtypes
from vis_jax.detectors.mask_rcnn_ids import IdRegionRule
from vis_jax.losses import rcnn
from vis_jax.params import flatten
from vis_jax.systems import SYSTEMS
from vis_jax.systems.iai_mask_rcnn import build, build_model
from vis_jax.systems.iai_mask_rcnn_loss import id_loss
from vis_jax.training.dry_run import batch_shapes


def _config(changes=None):
    return recipe("iai_mask_rcnn_shapes", "debug", changes)


@functools.cache
def _checked() -> Checked:
    """All that is found is shown."""
    changes = {"test.score": 0.0, "test.id_score": 0.0, "test.least": 0.0}
    # Coarse levels have few anchors, none of which is sampled here, and no region is
    # large enough to read them.
    coarse = {
        f"fpn/output{level}/{name}" for level in (4, 5) for name in ("kernel", "bias")
    }
    return check_system(build, _config(changes), no_gradient=coarse)


def test_keeps_the_contract_of_systems():
    found = _checked().predictions
    assert found.mask_logits.shape[1:] == (4, 28, 28)
    assert found.valid.shape == (5,)
    assert (found.slots >= 0).any()


def test_frame_by_frame_equals_the_whole_video():
    check_frame_by_frame(_checked())


def test_updates_bring_the_loss_down():
    check_learns(_checked(), updates=10, rate=0.3, mean_of=3)


def test_parameters_of_the_published_network():
    method, model = SYSTEMS["iai_mask_rcnn"], recipe("iai_mask_rcnn_r50", None).model
    init = method.build(method.settings(model=model)).init
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    shapes = flatten(dict(jax.eval_shape(init, jax.random.key(0), batch))["params"])
    counts = dict.fromkeys(
        ("backbone", "fpn", "rpn", "box_head", "mask_head", "hab"), 0
    )
    for path, leaf in shapes.items():
        counts[path.split("/")[0]] += int(np.prod(leaf.shape))
    assert counts == {
        "backbone": 23_508_032, "fpn": 3_344_384, "rpn": 593_935,
        "box_head": 14_123_230, "mask_head": 2_633_000, "hab": 10_726_850,
    }  # fmt: skip
    assert sum(counts.values()) == 54_929_431


def test_bfloat16_computes_without_hidden_promotion():
    check_dtypes(build, _config({"compute_dtype": "bfloat16"}))


def test_rules_of_the_test_reach_the_network():
    model = build_model(recipe("iai_mask_rcnn_r50", None))
    assert model.rule == IdRegionRule(0.1, 0.1, 0.5, 10, "code")
    assert model.box_head.ids == 20
    changes = {
        "test.score": 0.2, "test.id_score": 0.3, "test.nms": 0.4, "test.objects": 3,
        "test.rank": "average", "model.ids": 9,
    }  # fmt: skip
    changed = build_model(_config(changes))
    assert changed.rule == IdRegionRule(0.2, 0.3, 0.4, 3, "average")
    assert changed.box_head.ids == 9


def test_the_loss_of_identities_is_the_mean_over_real_regions():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4)).astype(np.float32)
    ids = rng.integers(0, 4, (2, 3)).astype(np.int32)
    valid = np.array([[True, False, True], [True, True, False]])
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    own = np.take_along_axis(logs, ids[..., None], axis=-1)[..., 0]
    wanted = -own[valid].mean()
    np.testing.assert_allclose(compiled(id_loss)(logits, ids, valid), wanted, rtol=1e-5)
    assert compiled(id_loss)(logits, ids, np.zeros_like(valid)) == 0


def test_boxes_of_anchors_and_of_regions_have_the_l1_loss(monkeypatch):
    betas = []

    def spy(values, targets, beta):
        betas.append((values.shape[1], beta))
        return jnp.zeros(values.shape[:-1])

    monkeypatch.setattr(rcnn, "smooth_l1", spy)
    config = _config({"model.rpn.sampled": 12, "model.regions.sampled": 8})
    system, batch = build(config), first_batch(config)
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
    jax.eval_shape(system.loss, shapes, batch, jax.random.key(0))
    assert set(betas) == {(12, 0.0), (8, 0.0)}


def test_a_data_set_without_classes_is_an_error():
    with pytest.raises(ValueError, match="model.num_classes: expected at least 1"):
        build_model(_config({"model.num_classes": 0}))

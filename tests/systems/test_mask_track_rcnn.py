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
    check_system,
    first_batch,
)
from tests.systems.traced import check_dtypes
from vis_jax.detectors.conventions import CONVENTIONS
from vis_jax.detectors.rcnn_targets import ImageTruth, RegionTargets
from vis_jax.structures import LossAux, Window
from vis_jax.systems import mask_track_rcnn
from vis_jax.systems.mask_track_rcnn import (
    Pair,
    build,
    build_model,
    draw_pair,
)
from vis_jax.systems.track_pairs import region_track_loss


def _config(changes=None):
    return recipe("mask_track_rcnn_shapes", "debug", changes)


@functools.cache
def _checked() -> Checked:
    # Coarse levels have few anchors, none of which is sampled here, and no region is
    # large enough to read them.
    coarse = {
        f"fpn/output{level}/{name}" for level in (4, 5) for name in ("kernel", "bias")
    }
    return check_system(build, _config(), no_gradient=coarse)


def test_keeps_the_contract_of_systems():
    config, found = _config(), _checked().predictions
    assert found.valid.shape == (config.test.tracks,)
    assert found.slots.shape[1] == config.test.objects
    assert (found.slots >= 0).any()


def test_frame_by_frame_equals_the_whole_video():
    check_frame_by_frame(_checked())


def test_updates_bring_the_loss_down():
    check_learns(_checked(), updates=10, rate=0.05, mean_of=3)


def test_a_pair_is_two_different_real_frames_in_random_roles():
    batch = first_batch(_config())
    pairs = jax.jit(
        jax.vmap(functools.partial(draw_pair, style="torch"), in_axes=(0, None))
    )
    keys = jax.random.split(jax.random.key(0), 20)
    found = pairs(keys, batch)
    first = np.asarray(batch.boxes[:, :, 0])
    is_first = (np.asarray(found.truth.boxes) == first[None]).all((-1, -2))
    assert is_first.any(0).all()
    assert not is_first.all()
    for draw, row in np.ndindex(is_first.shape):
        other = 1 if is_first[draw, row] else 0
        np.testing.assert_array_equal(
            found.reference_boxes[draw, row], batch.boxes[row, :, other]
        )
    alone = batch._replace(frame_valid=batch.frame_valid & (np.arange(2) == 0))
    found = pairs(keys, alone)
    np.testing.assert_array_equal(found.truth.boxes, np.stack([first] * 20))
    np.testing.assert_array_equal(found.reference_boxes, found.truth.boxes)


def test_pairs_are_of_real_frames():
    batch = first_batch(_config({"data.frames": 4, "data.batch_size": 3}))
    lengths = np.array([1, 2, 3])
    batch = batch._replace(
        boxes=np.tile(np.arange(4.0)[:, None], (*batch.boxes.shape[:2], 1, 4)).astype(
            np.float32
        ),
        frame_valid=np.arange(4) < lengths[:, None],
    )
    pairs = jax.jit(
        jax.vmap(functools.partial(draw_pair, style="torch"), in_axes=(0, None))
    )
    found = pairs(jax.random.split(jax.random.key(0), 50), batch)
    keys, others = found.truth.boxes[..., 0, 0], found.reference_boxes[..., 0, 0]
    for row, length in enumerate(lengths):
        drawn = {
            (int(a), int(b)) for a, b in zip(keys[:, row], others[:, row], strict=True)
        }
        expected = {(a, b) for a in range(length) for b in range(length) if a != b}
        assert drawn == (expected or {(0, 0)})


def test_a_padded_slot_is_present_in_neither_frame():
    batch = first_batch(_config())
    valid = np.arange(batch.instance_valid.shape[1]) > 0
    batch = batch._replace(
        present=np.ones_like(batch.present),
        instance_valid=np.tile(valid, (len(batch.present), 1)),
    )
    draw = jax.jit(functools.partial(draw_pair, style="torch"))
    found = draw(jax.random.key(0), batch)
    np.testing.assert_array_equal(found.truth.valid, batch.instance_valid)
    np.testing.assert_array_equal(found.reference_present, batch.instance_valid)


def test_regions_learn_which_object_of_the_reference_frame_they_are():
    """Two regions of object 0, which is there, one of object 1, which is not."""
    boxes = jnp.array([[[0.0, 0, 10, 10], [20, 0, 30, 10]]])
    regions = jnp.array([[[0.0, 0, 10, 10], [0, 0, 10, 6], [20, 0, 30, 9]]])
    none = jnp.zeros((1, 3), jnp.int32)
    positives = RegionTargets(
        boxes=regions,
        truth=none.at[0, 2].set(1),
        labels=none,
        deltas=jnp.zeros((1, 3, 4)),
        positive=none == 0,
        valid=none == 0,
    )
    pair = Pair(
        images=jnp.zeros((2, 1, 1, 3)),
        truth=ImageTruth(boxes, none[:, :2], none[:, :2] == 0),
        masks=jnp.zeros((1, 2, 1, 1), bool),
        reference_boxes=boxes,
        reference_present=jnp.array([[True, False]]),
        reference_masks=jnp.zeros((1, 2, 1, 1), bool),
    )
    embeds = jnp.array([[[1.0, 0], [3, 0], [2, 0]]])
    reference = jnp.array([[[1.0, 0], [9, 9]]])
    # Logits 0 = none and 1, 3, 2 = object 0, which is wanted but for the last region.
    losses = np.log1p(np.exp([-1.0, -3.0, 2.0]))
    loss = jax.jit(region_track_loss, static_argnames="least")
    for least, counted in ((0.5, [0, 1, 2]), (0.7, [0, 2])):  # IoU 1, 0.6, 0.9
        ours = loss(embeds, reference, positives, pair, least=least)
        np.testing.assert_allclose(ours, losses[counted].mean(), rtol=1e-5)


def test_bfloat16_computes_without_hidden_promotion():
    check_dtypes(build, _config({"compute_dtype": "bfloat16"}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.backbone.name", "vgg", "expected one of"),
        ("model.num_classes", 0, "expected at least 1, got 0"),
        ("model.rpn.sampled", 1, "expected int, at least 2, got 1"),
        ("model.regions.sampled", 999, "expected at most model.rpn.proposals, 16"),
        ("model.regions.positives", 17, "expected at most sampled, 16, got 17"),
        ("model.track_head.positive", 0.3, "expected float, 0.5 .. 1, got 0.3"),
        ("test.score", 2.0, "expected float, 0 .. 1, got 2.0"),
        ("test.objects", 129, "expected at most model.rpn.proposals x classes, 128"),
        ("test.tracker", "sort", "expected one of"),
        ("test.mode", "film", "expected 'video' or 'clip'"),
        ("test.tta", (64,), r"expected \(\) with a tracker"),
        ("test.tracks", 0, "expected int, at least 1"),
    ],
)
def test_a_wrong_setting_is_an_error(field, value, message):
    with pytest.raises(ValueError, match=f"{field}: {message}"):
        build(_config({field: value}))


@pytest.mark.parametrize("field", ["model.rpn.sampled", "model.rpn.proposals"])
def test_more_regions_than_anchors_of_a_frame_are_an_error(field):
    config = _config({field: 2000})
    system, batch = build(config), first_batch(config)
    shapes = jax.eval_shape(build(_config()).init, jax.random.key(0), batch)
    # 1536 anchors of 64 x 96 pixels.
    with pytest.raises(ValueError, match=f"{field}: expected at most 1536, .* got 200"):
        jax.eval_shape(system.loss, shapes, batch, jax.random.key(0))


def test_a_tracker_reads_clips_that_do_not_overlap():
    clips = {"test.mode": "clip", "test.clip_length": 4}
    assert build(_config(clips)).window == Window(4, 4)
    whole = build(_config({"test.frame_buckets": (8,)})).window
    assert whole == Window(None, None, buckets=(8,))
    with pytest.raises(ValueError, match=r"test.mode: expected 'video' with .* 'seq'"):
        build(_config({**clips, "test.tracker": "seq"}))


def test_each_weight_is_that_of_its_term(monkeypatch):
    weights = dict(rpn_class=2.0, rpn_box=3.0, box_class=4.0, box=5.0, mask=6.0)
    weights["track"] = 7.0
    ones = dict.fromkeys(weights, jnp.float32(1.0))
    monkeypatch.setattr(mask_track_rcnn, "draw_pair", lambda *_, **__: None)
    monkeypatch.setattr(mask_track_rcnn, "_losses", lambda *_: LossAux(ones, {}, {}))
    config = _config({f"loss.{name}": weight for name, weight in weights.items()})
    loss, aux = build(config).loss({}, first_batch(config), jax.random.key(0))
    assert {name: float(term) for name, term in aux.terms.items()} == weights
    assert float(loss) == sum(weights.values())


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_detector_follows_the_conventions_of_a_library(name):
    settings = _config({"model.conventions": name})
    rules, wanted = build_model(settings).rules, CONVENTIONS[name]
    assert (rules.roi_convention, rules.roi_samples) == (wanted.roi, wanted.samples)
    assert (rules.anchors.centre, rules.anchors.rounded) == wanted[:2]
    for coder in (rules.proposal_coder, rules.roi_coder):
        assert coder.log_range == wanted.log_range
    assert rules.proposals.least_side == wanted.least_proposal
    assert rules.detections.least_side == wanted.least_detection


def test_unknown_conventions_are_an_error():
    with pytest.raises(ValueError, match="model.conventions: expected one of"):
        _config({"model.conventions": "caffe2"})

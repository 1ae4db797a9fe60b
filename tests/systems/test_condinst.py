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
    check_statistics,
    check_system,
    first_batch,
)
from tests.systems.traced import check_dtypes, check_weights
from vis_jax.detectors import condinst_losses
from vis_jax.detectors.condinst import LocationRule
from vis_jax.detectors.condinst_losses import DiceLoss
from vis_jax.detectors.fcos_targets import TargetRule
from vis_jax.losses.fcos import FcosLosses
from vis_jax.systems import condinst
from vis_jax.systems.condinst import build, build_model


def _config(changes=None, name="condinst_shapes"):
    return recipe(name, "debug", changes)


HEAD = {"model.track_head.width": 8}

_NO_GRADIENT = {
    # On the coarsest levels no location is assigned an object of the debug size.
    *(f"detector/head/scale{level}" for level in (5, 6, 7)),
    # Group norm makes zeros of the coarsest level: one cell, groups of one channel.
    *(f"detector/fpn/output7/{leaf}" for leaf in ("kernel", "bias")),
}


def _with_head():
    """With batch norm in the backbone and a track head; all that is found is shown."""
    changes = {"model.backbone.norm": "batch", "test.score": 0.0, **HEAD}
    changes["test.tracker"] = "mask_track"
    return _config(changes, "condinst_r50")


@functools.cache
def _checked() -> Checked:
    return check_system(build, _with_head(), no_gradient=_NO_GRADIENT)


def test_keeps_the_contract_of_systems():
    config, found = _config(name="condinst_r50"), _checked().predictions
    assert found.valid.shape == (config.test.tracks,)
    assert found.mask_logits.shape[1:] == (config.test.objects, 16, 24)
    assert (found.slots >= 0).any()
    shown = found.mask_boxes[found.slots >= 0]
    np.testing.assert_array_equal(shown, np.tile([0, 0, 96, 64], (len(shown), 1)))


def test_statistics_of_the_batch_are_handed_on_without_padded_frames():
    check_statistics(_checked(), {"backbone", "detector"})


def test_without_objects_the_loss_is_finite():
    checked = _checked()
    none = np.zeros_like(checked.batch.present)
    (loss, aux), gradient = checked.loss_and_gradient(
        checked.variables["params"], checked.batch._replace(present=none)
    )
    assert np.isfinite(loss)
    assert {name for name, x in aux.terms.items() if x} == {"box_class"}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_frame_by_frame_equals_the_whole_video():
    check_frame_by_frame(_checked())


def test_updates_bring_the_loss_down():
    check_learns(_checked(), updates=10, rate=0.1, mean_of=3)


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("condinst_r50", 23_508_032), ("condinst_r101", 42_500_160)],
)
def test_parameters_of_the_published_detector(name, backbone):
    config = recipe(name, None)
    shapes = jax.eval_shape(
        build(config).init, jax.random.key(0), first_batch(_config())
    )

    def count(tree):
        return sum(x.size for x in jax.tree.leaves(tree))

    params = shapes["params"]
    assert count(params["backbone"]) == backbone
    parts = {name: count(tree) for name, tree in params["detector"].items()}
    # The head of IAI, 7,329,783 with the masks, less its identities.
    assert parts == {"fpn": 3_868_672, "head": 5_215_963, "masks": 1_477_384}


def test_parameters_of_the_track_head():
    init = build(recipe("condinst_r50", "track")).init
    shapes = jax.eval_shape(init, jax.random.key(0), first_batch(_config()))
    head = shapes["params"]["track_head"]
    # A convolution without bias, its group norm, and one with bias.
    expected = 9 * 256**2 + 2 * 256 + 9 * 256**2 + 256
    assert sum(x.size for x in jax.tree.leaves(head)) == expected


def test_bfloat16_computes_without_hidden_promotion():
    check_dtypes(build, _config({"compute_dtype": "bfloat16", **HEAD}))


def test_embeddings_of_objects_are_those_of_the_locations_they_were_found_at():
    """And those of a true box are those of the location at its middle."""
    checked, model = _checked(), build_model(_with_head())
    variables, batch = checked.variables, checked.batch
    middle = np.array([[[20, 12, 28, 20], [8, 8, 56, 56]]], np.float32)

    def run(variables, images, size):
        def both(self, images, size):
            levels = self.features(images)
            return (
                self.find(levels, size).embeds,
                self.embed(levels),
                self.describe(levels, jnp.asarray(middle)).embeds,
            )

        return model.apply(variables, images, size, method=both)

    images = batch.images[0, :1].astype(np.float32) / 128 - 1
    found, everywhere, described = compiled(run)(variables, images, batch.sizes[0])
    near = np.abs(everywhere[0][:, None] - found[0][None]).max(axis=2)
    assert (near.min(axis=0) == 0).all()
    # Cell (2, 3) of 8 x 12 cells of 8 pixels; cell (2, 2) of 4 x 6 of 16 pixels.
    np.testing.assert_array_equal(
        described[0], everywhere[0][[2 * 12 + 3, 96 + 2 * 6 + 2]]
    )


def test_each_weight_is_that_of_its_term_and_each_rule_arrives(monkeypatch):
    rules, most, compared = [], [], []
    one = jnp.float32(1.0)
    targets_of = condinst_losses.dense_targets

    def targets(*args, rule, **kwargs):
        rules.append(rule)
        return targets_of(*args, rule=rule, **kwargs)

    def masks(*_, **kwargs):
        most.append(kwargs["most"])
        return DiceLoss(one, one)

    def places(*_, **kwargs):
        compared.append(kwargs["most"])
        return one

    monkeypatch.setattr(condinst, "place_loss", places)
    monkeypatch.setattr(condinst_losses, "dense_targets", targets)
    monkeypatch.setattr(
        condinst_losses, "fcos_losses", lambda *_, **__: FcosLosses(*[one] * 3)
    )
    monkeypatch.setattr(condinst_losses, "mask_loss", masks)
    weights = dict(box_class=2.0, box=3.0, centre=4.0, mask=5.0, track=6.0)
    rule = dict(radius=2.5, ranges=(8.0, 9.0, 10.0, 11.0))
    changes = weights | rule | dict(positives=7)
    changes = {f"loss.{name}": value for name, value in changes.items()}
    config = _config(changes | HEAD)
    aux = check_weights(build(config), config, weights)
    assert set(aux.notes) == {"positives_left_out"}
    # Values passed to the detector's loss and to that of pairs.
    assert (rules, most, compared) == ([TargetRule(**rule)] * 2, [7], [7])


def test_settings_reach_the_network():
    model = build_model(recipe("condinst_r50", None))
    assert model.rule == LocationRule(0.05, 0.5, 200, 10)
    assert model.detector.head.convs == model.detector.masks.convs == 4
    assert model.detector.fpn.extra == "relu_conv"
    assert model.style == "vgg"
    assert build_model(_config()).style == "torch"
    coco = build_model(recipe("condinst_r101", "dataset=coco"))
    assert coco.rule == LocationRule(0.05, 0.6, 1_000, 100)
    small = build_model(
        _config(
            {
                "model.head.convs": 3, "model.masks.dim": 5, "model.masks.convs": 6,
                "model.masks.channels": 7,
            }
        )
    ).detector  # fmt: skip
    assert (small.head.convs, small.head.filters) == (3, 9 * 8 + 64 + 8 + 17)
    assert small.fpn.extra == "relu_conv"
    masks = small.masks
    assert (masks.dim, masks.convs, masks.channels) == (5, 6, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.num_classes": 0}, "model.num_classes: expected at least 1, got 0"),
        (
            {"loss.ranges": (64.0, 32.0, 128.0, 256.0)},
            "loss.ranges: expected 4 in ascending order",
        ),
        ({"loss.ranges": (64.0,)}, "loss.ranges: expected 4 in ascending order"),
        ({"test.tracker": "osmn"}, "test.tracker: expected one of"),
        (
            {"loss.detector": False},
            "loss.detector: expected True without a track head .*, got False",
        ),
        ({"model.track_head.width": -1}, "model.track_head.width: expected int, at"),
    ],
)
def test_settings_that_do_not_fit_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        build(_config(changes))

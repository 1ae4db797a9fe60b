"""The terms that MaskProp adds, against loops over objects, frames and cells."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.recipes import recipe
from tests.systems.traced import check_weights
from vis_jax.association import propagation
from vis_jax.detectors import refine
from vis_jax.detectors.cascade import CascadeFeatures
from vis_jax.detectors.frame_pair import Pair
from vis_jax.detectors.rcnn_targets import ImageTruth
from vis_jax.structures import LossAux
from vis_jax.systems import mask_prop, mask_prop_loss
from vis_jax.systems.cascade_loss import PairLosses
from vis_jax.systems.mask_prop_loss import carried_masks, extra_terms, on_level
from vis_jax.systems.mask_prop_settings import LossSettings

HEIGHT, WIDTH, CHANNELS, OBJECTS = 48, 64, 8, 3
CANVAS = (HEIGHT, WIDTH)
BRANCH = propagation.MaskPropagation(
    propagation.Settings(dim=8, dilations=(1, 2), chunk=16), CHANNELS
)
PATCH = refine.Settings(side=16, dim=8, blocks=1)
NET = refine.Refine(PATCH)


def _pair(rng) -> Pair:
    """Two pairs: three objects, of which one leaves; and none."""
    masks = np.zeros((2, 2, OBJECTS, *CANVAS), bool)  # key frames, then the others
    boxes = np.zeros((2, 2, OBJECTS, 4), np.float32)
    places = [(0, 4, 6, 20, 30), (1, 24, 30, 44, 60), (2, 2, 40, 18, 58)]
    for number, top, left, bottom, right in places:
        for frame in range(2):
            if frame and number == 2:
                continue
            step = 3 * frame
            inside = (slice(top + step, bottom + step), slice(left, right))
            masks[frame, 0, number][inside] = True
            boxes[frame, 0, number] = (left, top + step, right, bottom + step)
    present = masks.any(axis=(-2, -1))
    images = rng.normal(size=(4, *CANVAS, 3)).astype(np.float32)
    labels = np.array([[0, 1, 0], [0, 0, 0]], np.int32)
    return Pair(
        images=images,
        truth=ImageTruth(boxes[0], labels, present[0]),
        masks=masks[0],
        reference_boxes=boxes[1],
        reference_present=present[1],
        reference_masks=masks[1],
    )


@functools.cache
def _case():
    """Parameters, the pairs and features of both frames."""
    rng = np.random.default_rng(0)
    levels = tuple(
        rng.normal(size=(2, HEIGHT // s, WIDTH // s, CHANNELS)).astype(np.float32)
        for s in (4, 8, 16)
    )
    features = CascadeFeatures(levels, None, None)
    other = rng.normal(size=levels[1].shape).astype(np.float32)
    valid = np.ones(1, bool)
    one = np.zeros((1, *levels[1].shape[1:3]), np.float32)

    @compiled
    def init(key, *inputs):
        patch = jnp.zeros((16, 16, 4), jnp.float32)
        return BRANCH.init(key, *inputs), NET.init(key, patch)

    key = jax.random.key(0)
    found = init(key, levels[1][0], other[0], one, valid)
    # Not as they begin, where offsets and what is refined are zero.
    noisy = jax.tree.map(
        lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), found
    )
    return dict(zip(("branch", "net"), noisy, strict=True)), _pair(rng), features, other


def _apply(variables):
    """The network: masks by the mask heads are a fixed function of the features."""

    def apply(method, /, *inputs):
        if method == "mask_probs":
            features, boxes, labels = inputs
            grid = jnp.linspace(-2.0, 2.0, 28)
            disk = 4 - grid[:, None] ** 2 - grid[None] ** 2
            level = features.levels[1].mean() * variables["heads"]
            logits = jnp.broadcast_to(disk, (*boxes.shape[:2], 28, 28)) + level
            by_label = labels[..., None, None].astype(jnp.float32)
            return jax.nn.sigmoid(logits + by_label)
        if method == "refine_patch":
            return NET.apply(variables["net"], *inputs)
        return BRANCH.apply(variables["branch"], *inputs, method=method)

    return apply


def _terms(variables, features, other, pair, *, settings):
    return extra_terms(
        jax.random.key(1),
        _apply(variables),
        settings,
        pair,
        features=features,
        other=other,
        sizes=jnp.array([CANVAS] * 2, jnp.int32),
        refinement=PATCH,
    )


# Unlike the defaults.
OTHERS = {"own_frame": False, "epsilon": 0.25, "normalisation": "sum"}


class Found(NamedTuple):
    """Values that the tests compare, from one program, as most is shared."""

    loss: np.ndarray  # of the propagation
    other_loss: np.ndarray  # with `OTHERS`
    gradients: tuple  # by variables and by the features of both frames
    of_heads: dict  # the gradient of the mask heads by `mask_gradient`
    refinement: dict  # by the most objects
    carried: dict  # by the share of true masks


@functools.cache
def _found() -> Found:
    variables, *inputs = _case()
    variables = variables | {"heads": np.float32(0.3)}

    @compiled
    def run(variables, pair, features, other):
        def loss(variables, features, other, **changes):
            settings = LossSettings(**changes)
            terms = _terms(variables, features, other, pair, settings=settings)
            return terms["propagation"], terms["refinement"]

        def of_heads(heads):
            changes = OTHERS | {"mask_gradient": True, "refined": 1}
            return loss(variables | {"heads": heads}, features, other, **changes)

        def carried(share):
            return carried_masks(
                jax.random.split(jax.random.key(1))[0],
                _apply(variables),
                LossSettings(true_masks=share),
                pair,
                features,
                jnp.array([CANVAS] * 2, jnp.int32),
            )

        by_all = jax.value_and_grad(
            functools.partial(loss, refined=OBJECTS), argnums=(0, 1, 2), has_aux=True
        )
        (value, of_all), gradients = by_all(variables, features, other)
        by_heads = jax.value_and_grad(of_heads, has_aux=True)
        (changed, of_one), gradient = by_heads(variables["heads"])
        return Found(
            value,
            changed,
            gradients,
            {True: gradient, False: gradients[0]["heads"]},
            {1: of_one, OBJECTS: of_all},
            {share: carried(share) for share in (0.0, 0.5, 1.0)},
        )

    return run(variables, *inputs)


_branch = compiled(BRANCH.apply)


def _literal(own_frame=True, epsilon=1.0, normalisation="mean"):
    """Eq. 2 and 3 in loops."""
    variables, pair, features, other = _case()
    carried = _found().carried[LossSettings().true_masks]
    total = 0.0
    for clip in range(2):
        valid = pair.truth.valid[clip]
        key = features.levels[1][clip]
        frames = [(key, pair.masks[clip])] if own_frame else []
        frames.append((other[clip], pair.reference_masks[clip]))
        loss = 0.0
        for values, masks in frames:
            found = _branch(
                variables["branch"], key, values, carried.masks[clip], valid
            )
            for number in np.flatnonzero(valid):
                wanted = masks[number].reshape(6, 8, 8, 8).mean(axis=(1, 3))
                both = (found[number] * wanted).sum()
                either = found[number].sum() + wanted.sum() - both
                loss += 1 - (both + epsilon) / (either + epsilon)
        count = valid.sum() if normalisation == "mean" else 1
        total += loss / max(count, 1)
    return total / 2


def test_masks_on_the_level_are_the_shares_of_cells():
    masks = np.zeros((1, 1, 16, 24), bool)
    masks[0, 0, 4:12, 8:14] = True
    np.testing.assert_array_equal(
        compiled(on_level)(masks)[0, 0], [[0, 0.375, 0], [0, 0.375, 0]]
    )


def test_the_propagation_loss_is_eq_2_of_both_frames():
    np.testing.assert_allclose(_found().loss, _literal(), rtol=1e-4)
    np.testing.assert_allclose(_found().other_loss, _literal(**OTHERS), rtol=1e-4)


def test_masks_are_the_true_ones_or_those_of_the_heads_on_moved_boxes():
    _, pair, _, _ = _case()
    true, found = _found().carried[1.0], _found().carried[0.0]
    np.testing.assert_array_equal(true.masks, true.truth)
    assert np.abs(found.masks - found.truth)[0].max() > 0.1
    mixed = _found().carried[0.5].masks
    which = [
        [np.array_equal(mixed[0, n], x.masks[0, n]) for x in (true, found)]
        for n in range(OBJECTS)
    ]
    assert all(sum(row) == 1 for row in which)
    assert {row[0] for row in which} == {True, False}
    moved = np.abs(found.boxes - pair.truth.boxes)[0]
    assert (moved > 0).all() and moved.max() < 3


def test_mask_heads_learn_by_what_is_carried_only_if_asked():
    assert _found().of_heads[False] == 0
    assert _found().of_heads[True] != 0


def test_gradients_reach_the_branch_and_the_features_of_both_frames():
    variables, features, other = _found().gradients
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(variables["branch"]))
    # The second pair has no objects.
    for level in (features.levels[1], other):
        assert np.abs(level[0]).max() > 0
        assert not level[1].any()


def test_some_objects_train_the_refinement():
    """Here all three of the first pair, or one of them; the second pair has none."""
    all_of_them, one = (_found().refinement[count] for count in (OBJECTS, 1))
    assert 0 < all_of_them < 0.5 and 0 < one < 0.5
    assert one != pytest.approx(all_of_them, rel=1e-3)


def test_each_weight_is_that_of_its_term_and_settings_arrive(monkeypatch):
    of_detector = (
        "rpn_class", "rpn_box", "box_class", "box", "mask", "semantic", "track",
    )  # fmt: skip
    of_masks = ("propagation", "refinement")
    weights = {name: float(n) for n, name in enumerate(of_detector + of_masks, 2)}
    one, given = jnp.float32(1.0), {}
    key, other = (tuple(jnp.zeros((1, 8, 12, 4)) for _ in range(3)) for _ in range(2))

    def detector(*_, **settings):
        given.update(settings)
        aux = LossAux(dict.fromkeys(of_detector, one), {}, {})
        return PairLosses(aux, CascadeFeatures(key, None, None), other)

    def extra(rng, apply, settings, pair, **inputs):
        given.update(inputs, loss=settings)
        return dict.fromkeys(of_masks, one)

    monkeypatch.setattr(mask_prop_loss, "pair_losses", detector)
    monkeypatch.setattr(mask_prop_loss, "extra_terms", extra)
    changes = {f"loss.{name}": weight for name, weight in weights.items()}
    changes["model.track_head.positive"] = 0.8
    config = recipe("mask_prop_shapes", "debug", changes)
    aux = check_weights(mask_prop.build(config), config, weights)
    assert aux.notes == {}
    assert given["both"] and given["least"] == 0.8
    assert given["features"].levels[1] is key[1]
    assert given["other"] is other[1]
    assert given["loss"] == config.loss
    assert given["refinement"] == config.model.refinement

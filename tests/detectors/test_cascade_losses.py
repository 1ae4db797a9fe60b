from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from tests.detectors import literal_cascade
from tests.recipes import recipe
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.cascade import (
    Cascade,
    CascadeFeatures,
    StageOutput,
    cascade_parts,
)
from vis_jax.detectors.cascade_losses import (
    Boxes,
    StageLosses,
    TrueObjects,
    cascade_losses,
    stage_terms,
    train_rules,
)
from vis_jax.detectors.rcnn_targets import ImageTruth, MatchRule
from vis_jax.ops.box_coder import BOTH, BoxCoder, decode
from vis_jax.ops.box_matching import claim_best
from vis_jax.ops.boxes import clip_boxes
from vis_jax.params import flatten

K, HEIGHT, WIDTH, CELLS = 3, 48, 64, 28
IOU = (0.5, 0.6, 0.7)
STDS = tuple((a, a, b, b) for a, b in ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067)))
CODERS = tuple(BoxCoder(stds, BOTH) for stds in STDS)


class Weights(NamedTuple):
    """Learned values of the stages below, one per stage."""

    classes: np.ndarray  # [4, K + 1]
    deltas: np.ndarray  # [4, 4]
    masks: np.ndarray  # [4, K]


class Heads(NamedTuple):
    """Stages whose outputs are simple functions of boxes."""

    weights: list

    def classify(self, stage, features, boxes):
        at = self.weights[stage]
        return StageOutput(
            jnp.sin(boxes @ at.classes), 0.5 * jnp.sin(boxes @ at.deltas)
        )

    def refine(self, stage, deltas, boxes, sizes):
        moved = decode(deltas, boxes, coder=CODERS[stage])
        return jax.vmap(clip_boxes)(moved, sizes)

    def mask_logits(self, stage, features, boxes):
        level = (boxes @ self.weights[stage].masks)[..., None, None, :]
        cells = np.linspace(-1, 1, CELLS, dtype=np.float32)
        return jnp.sin(level) + (cells[:, None] * cells)[None, None, :, :, None]


def _literal_stages(weights):
    cells = np.linspace(-1, 1, CELLS)
    plane = (cells[:, None] * cells)[..., None]
    return [
        literal_cascade.Stage(
            lambda boxes, w=w: np.sin(boxes @ w.classes.astype(float)),
            lambda boxes, w=w: 0.5 * np.sin(boxes @ w.deltas.astype(float)),
            lambda box, w=w: np.sin(box @ w.masks.astype(float)) + plane,
            iou,
            stds,
        )
        for w, iou, stds in zip(weights, IOU, STDS, strict=True)
    ]


def _weights(rng):
    draw = [[rng.normal(size=(4, n)) / 20 for n in (K + 1, 4, K)] for _ in IOU]
    return [Weights(*(x.astype(np.float32) for x in stage)) for stage in draw]


def _image(rng):
    """Two objects and padding, and boxes near the objects, beside them and padding."""
    objects = np.array([[8, 6, 30, 34], [24.5, 12, 60, 40], [3, 3, 9, 9]], np.float32)
    near = objects[rng.integers(0, 2, 30)] + rng.normal(size=(30, 4)) * 4
    far = rng.uniform(0, 20, (6, 4)) + [0, 0, 20, 20]
    boxes = np.concatenate([near, far]).clip(0, [WIDTH, HEIGHT] * 2)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    masks = [
        ((columns - (x0 + x1) / 2) / (x1 - x0)) ** 2
        + ((rows - (y0 + y1) / 2) / (y1 - y0)) ** 2
        < 0.25
        for x0, y0, x1, y1 in objects
    ]
    return boxes.astype(np.float32), objects, np.stack(masks)


def _run(weights, boxes, valid, objects, *, size, positives):
    rules = [MatchRule(x, x, claim_best, x, size, positives) for x in IOU]
    return cascade_losses(
        jax.random.key(0),
        Heads(weights),
        None,
        Boxes(boxes, valid),
        objects,
        coders=CODERS,
        rules=tuple(rules),
        num_classes=K,
    )


run = compiled(_run, static_argnames=("size", "positives"))


def _inputs():
    rng = np.random.default_rng(3)
    boxes, objects, masks = _image(rng)
    truth = ImageTruth(
        objects[None], np.array([[2, 0, 1]]), np.array([[True, True, False]])
    )
    shown = TrueObjects(truth, masks[None], np.array([[HEIGHT, WIDTH]]))
    valid = np.arange(len(boxes)) % 6 > 0
    return _weights(rng), boxes[None], valid[None], shown


def test_every_stage_trains_on_what_the_definition_says():
    weights, boxes, valid, shown = _inputs()

    found = run(weights, boxes, valid, shown, size=38, positives=38)
    expected = literal_cascade.train(
        _literal_stages(weights),
        boxes[0][valid[0]].astype(float),
        shown.truth.boxes[0, :2].astype(float),
        shown.truth.labels[0],
        shown.masks[0],
        (HEIGHT, WIDTH),
    )
    for name in ("classes", "boxes", "masks"):
        wanted = [getattr(x, name) for x in expected]
        np.testing.assert_allclose(getattr(found.losses, name), wanted, rtol=1e-4)
    real = found.positives.positive[0]
    rows = np.column_stack([found.positives.truth[0], found.positives.boxes[0]])[real]
    last = np.array([[number, *box] for box, number in expected[-1].positives])
    np.testing.assert_allclose(_sorted(rows), _sorted(last), atol=1e-3)
    moved = found.moved.boxes[found.moved.valid]
    np.testing.assert_allclose(_sorted(moved), _sorted(expected[-1].moved), atol=1e-3)
    assert found.left_out == 0
    # Boxes win and lose objects on the way, so that every assignment matters.
    assert len({len(x.positives) for x in expected}) == 3


def _sorted(rows):
    return rows[np.lexsort(np.round(rows, 2).T)]


def test_boxes_have_no_gradient_and_stages_learn_from_their_own_losses():
    weights, boxes, valid, shown = _inputs()

    def last(weights, boxes, valid, shown):
        found = _run(weights, boxes, valid, shown, size=16, positives=4)
        return sum(x[2] for x in found.losses), found

    of = compiled(jax.grad(last, (0, 1), has_aux=True))
    (of_weights, of_boxes), few = of(weights, boxes, valid, shown)
    assert not of_boxes.any()
    for stage, found in enumerate(of_weights):
        for gradient in found:
            assert gradient.any() == (stage == 2)
    # Samples are limited, and what finds no place among them is counted.
    assert few.positives.boxes.shape == (1, 4, 4)
    assert few.moved.boxes.shape == (1, 16, 4)
    assert few.left_out > 0


def test_stages_count_by_their_weights():
    model = recipe("cascade_r50", None).model
    rules = train_rules(model)
    assert rules.weights == (1.0, 0.5, 0.25)
    assert [rule[:2] for rule in rules.regions] == [(0.5, 0.5), (0.6, 0.6), (0.7, 0.7)]
    assert [rule.least for rule in rules.regions] == [0.5, 0.6, 0.7]
    assert {rule[-2:] for rule in rules.regions} == {(512, 128)}
    assert rules.anchors[-2:] == (256, 128)
    losses = [np.array(x, np.float32) for x in ((1, 2, 4), (8, 0, 0), (0, 0, 40))]
    terms = compiled(stage_terms, static_argnums=1)(StageLosses(*losses), rules.weights)
    assert terms == {"box_class": 3.0, "box": 8.0, "mask": 10.0}


def test_masks_of_the_last_stage_train_the_heads_before_it():
    """Their hidden layers, but neither what they predict nor any box head."""
    settings = recipe("cascade_shapes", "debug").model
    model = Cascade(
        **cascade_parts(settings, DetectRule(0.1, 0.5, 0.0, 4), jnp.dtype("float32"))
    )
    maps = [np.ones((1, 2**n, 2**n, 16), np.float32) for n in (4, 3, 2, 1, 0)]
    features = CascadeFeatures(tuple(maps), maps[1], None)
    boxes = np.array([[[2, 3, 40, 50]]], np.float32)

    def masks(params, features, boxes):
        logits = model.apply(params, 1, features, boxes, method="mask_logits")
        return logits.sum()

    @compiled
    def of(key, features, boxes):
        params = model.init(key, features, boxes, method="all_masks")
        return jax.grad(masks)(params, features, boxes)

    found = flatten(of(jax.random.key(0), features, boxes))
    reached = {path.split("/", 1)[1] for path, x in found.items() if x.any()}
    layers = {0: ("conv1",), 1: ("conv1", "flow", "mask_logits", "upsample")}
    assert reached == {
        f"mask_heads_{stage}/{layer}/{leaf}"
        for stage, names in layers.items()
        for layer in names
        for leaf in ("kernel", "bias")
    }

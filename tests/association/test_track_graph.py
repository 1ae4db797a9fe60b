"""The association against the slow form of the same, which reads one pair at a time."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.association import literal_appearance, literal_masks
from tests.association.as_ours import settings_of, variables_of
from tests.association.literal_graph import start, step
from tests.association.literal_layers import PAPER, PLUS, RELEASED
from tests.association.literal_memory import FREE
from tests.association.literal_weights import Widths, random_frame, random_weights
from tests.compiled import compiled
from vis_jax.association import track_scores
from vis_jax.association.track_appearance import AppearanceEncoder, Masks, pool
from vis_jax.association.track_decisions import Thresholds
from vis_jax.association.track_graph import GraphFrame, TrackGraph, empty_memory
from vis_jax.association.track_masks import MaskReweighting, detection_masks
from vis_jax.ops.masks import between_corners
from vis_jax.params import flatten

WIDTHS = Widths()
TRACKS, DETECTIONS, CANVAS = 6, 7, (48, 64)
# Few at first, none once, more new objects than slots, and all out of sight.
VALID = (2, 3, 0, 7, 7, 4)
OPTIONS = {
    "paper": PAPER,
    "released": RELEASED,
    "plus": PLUS,
    "pairs": replace(PAPER, graph="pairs"),
    "pairs_without_looks": replace(PAPER, graph="pairs", appearance="none"),
    "heuristic": replace(PAPER, graph="heuristic"),
    "heuristic_in_training": replace(PAPER, graph="heuristic", heuristic_terms=False),
    "sums": replace(PAPER, node_updates="mlp"),
    "sums_with_norm": replace(PLUS, node_updates="mlp"),
    "one_block": replace(PAPER, blocks=1),
    "three_blocks": replace(PAPER, blocks=3),
    "no_residuals": replace(PAPER, residuals=False),
    "no_recurrence": replace(PAPER, recurrence="none"),
    "simple": replace(PAPER, recurrence="simple"),
    "feedback": replace(PAPER, hidden_feedback=True),
    "two_layers": replace(PAPER, bottleneck=2),
    "no_looks": replace(PAPER, appearance="none"),
    "looks_of_nodes": replace(PAPER, appearance="vertex"),
    "constant_variance": replace(PAPER, appearance="constant_variance"),
    "lstm_looks": replace(PAPER, appearance="lstm"),
    "released_variance": replace(PAPER, variance_rule="released"),
    "conjugate_variance": replace(PAPER, variance_rule="nix2"),
    "from_zero": replace(PAPER, first_appearance="update"),
    "last_boxes": replace(PAPER, inactive_boxes="zero"),
}


def _weights(options, seed=0):
    # Without recurrence numbers grow from frame to frame, and their rounding with them.
    scale = 0.5 if options.recurrence == "none" else 1.0
    rng = np.random.default_rng(seed)
    weights = random_weights(options, WIDTHS, rng, scale=scale)
    if options.first_appearance != "update":  # one number for all channels
        weights |= {name: weights[name][:1] for name in ("rho", "rho0")}
    return weights


def _ours(frame):
    """A frame of the literal form."""
    single = {name: jnp.float32(getattr(frame, name)) for name in ("logits", "scores")}
    return GraphFrame(
        valid=jnp.asarray(frame.valid),
        boxes=jnp.float32(frame.boxes),
        appearance=jnp.float32(frame.x),
        background=jnp.float32(frame.x0),
        real=jnp.bool_(True),
        **single,
    )


def _frames():
    """Boxes that all overlap: those that do not would be equally good matches."""
    rng = np.random.default_rng(1)
    frames = [
        random_frame(WIDTHS, rng, detections=DETECTIONS, valid=n, canvas=CANVAS)
        for n in VALID
    ]
    larger = np.array([0, 0, 0.7 * CANVAS[1], 0.7 * CANVAS[0]])
    return [replace(frame, boxes=frame.boxes + larger) for frame in frames]


def _apply(options, weights):
    """Our step with these weights."""
    settings = settings_of(options, TRACKS, WIDTHS.embedding, WIDTHS.bottleneck)
    module = TrackGraph(settings, WIDTHS.appearance, WIDTHS.classes)
    memory = empty_memory(settings, WIDTHS.appearance)
    frame = _ours(_frames()[0])
    call = functools.partial(
        module.apply,
        canvas=CANVAS,
        thresholds=Thresholds(options.match_threshold, options.start_threshold),
        cues=options.heuristic_terms,
    )
    init = functools.partial(module.init, **call.keywords)
    shapes = flatten(dict(jax.eval_shape(init, jax.random.key(0), memory, frame)))
    return compiled(call), variables_of(weights, shapes), memory


def _check(memory, linked, state, out):
    """Compares decisions and memory after a frame."""

    def close(ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)

    for ours, theirs in (
        (linked.match_logits, out.match),
        (linked.start_logits, out.start),
    ):
        # Scores below -10 count for nothing, and the literal form says so.
        close(np.where(ours < -10, np.minimum(theirs, -10), ours), theirs)
    np.testing.assert_array_equal(linked.status, out.status)
    np.testing.assert_array_equal(linked.born, out.born)
    active = out.chosen >= 0
    np.testing.assert_array_equal(linked.chosen[active], out.chosen[active])
    used = out.status != FREE
    close(linked.hidden, out.embedding)
    close(linked.class_logits[used], out.classes[used])
    close(memory.cell, state.cell)
    close(memory.boxes, state.boxes)
    close(memory.empty_hidden, state.embedding0)
    close(memory.empty_cell, state.cell0)


def _check_looks(memory, state):
    mean, var = memory.appearance.mean, memory.appearance.var
    used = state.status != FREE
    for ours, theirs in (
        (mean[:-1][used], state.mean[used]),
        (mean[-1], state.mean0),
        (var[:-1][used], state.variance[used]),
        (var[-1], state.variance0),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_six_frames_agree_with_the_slow_form(name):
    options = OPTIONS[name]
    weights, frames = _weights(options), _frames()
    apply, variables, memory = _apply(options, weights)
    state = start(weights, options, frames[0].x0, TRACKS)
    tally = track_scores.empty_tally(TRACKS, WIDTHS.classes)
    seen, lost = set(), 0
    for frame in frames:
        state, out = step(weights, options, state, frame)
        memory, linked = apply(variables, memory, _ours(frame))
        _check(memory, linked, state, out)
        if options.appearance not in ("vertex", "none"):
            _check_looks(memory, state)
        one = jax.tree.map(lambda x: x[None], (_ours(frame), linked))
        tally = track_scores.count(tally, *one)
        seen |= set(state.status)
        lost += (out.start > options.start_threshold).sum() - out.born.sum()
    assert len(seen) > 1
    if options.graph != "heuristic":  # whose new tracks have no threshold
        assert memory.lost == lost
    np.testing.assert_array_equal(tally.seen, state.seen)
    np.testing.assert_array_equal(tally.votes, state.votes[:, 1:])
    np.testing.assert_allclose(tally.scores, state.confidence, rtol=1e-5)
    np.testing.assert_allclose(tally.logits, state.logits_sum, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["paper", "released", "plus"])
def test_descriptions_agree_with_the_slow_form(name):
    options, rng = OPTIONS[name], np.random.default_rng(2)
    width, sizes = 8, {"res4": (7, 9, 5), "res5": (4, 5, 6)}
    features = {key: rng.normal(size=size) for key, size in sizes.items()}
    logits = 3 * rng.normal(size=(3, 13, 17))
    valid, inside = np.array([True, True, False]), rng.random((3, 13, 17)) < 0.5
    weights = {}
    layers = {"psi4": (5, 4), "psi5": (6, 4)}
    layers |= {"phi.1": (8, 3), "phi.2": (3, 3), "phi.3": (3, 8)}
    for layer, (enter, leave) in layers.items():
        weights[f"{layer}/w"] = rng.normal(size=(enter, leave))
        weights[f"{layer}/b"] = rng.normal(size=leave)
    module = AppearanceEncoder(width, 3, options.empty_appearance == "described")

    def describe(variables, features, logits, inside, valid):
        masks = Masks(logits, inside, valid)
        pooled = pool(features, masks, width // 2 if options.positions else 0)
        if variables is None:
            return module.init(jax.random.key(0), pooled, valid)
        return module.apply(variables, pooled, valid)

    arguments = (
        {key: jnp.float32(x)[None] for key, x in features.items()},
        *(jnp.asarray(x)[None] for x in (np.float32(logits), inside, valid)),
    )
    shapes = jax.eval_shape(functools.partial(describe, None), *arguments)
    variables = variables_of(weights, flatten(dict(shapes)))
    found = compiled(describe)(variables, *arguments)
    maps = (features["res4"], features["res5"])
    theirs = literal_appearance.detection_appearance(
        weights, options, maps, logits + 10.0 * inside, valid
    )
    whole = literal_appearance.frame_appearance(weights, options, maps)
    np.testing.assert_allclose(found.appearance[0], theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.background[0], whole, rtol=1e-4, atol=1e-4)


def test_masks_agree_with_the_slow_form():
    rng, dim, size = np.random.default_rng(3), 5, (6, 7)
    shapes = {"embedding": (dim, 4), "conv1": (3, 3, 6, 4), "conv2": (3, 3, 4, 1)}
    weights = {}
    for layer, shape in shapes.items():
        weights[f"masks.{layer}/w"] = rng.normal(size=shape)
        weights[f"masks.{layer}/b"] = rng.normal(size=shape[-1])
    logits, inside = rng.normal(size=(3, *size)), rng.random((3, *size)) < 0.5
    embeds, status = rng.normal(size=(4, dim)), np.array([1, 0, 2, 1])
    chosen = np.array([2, 0, 1, 0])
    own = (np.float32(logits[chosen]), inside[chosen])
    module = MaskReweighting(4)
    arguments = (*own, np.float32(embeds), status == 1)
    expected = jax.eval_shape(
        module.init, jax.random.key(0), *map(jnp.asarray, arguments)
    )
    variables = variables_of(weights, flatten(dict(expected)))
    found = compiled(module.apply)(variables, *arguments)
    masks = (logits, inside.astype(float))
    theirs = literal_masks.track_masks(weights, embeds, status, chosen, masks)
    np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-4)
    plain = compiled(detection_masks)(*own, status == 1)
    theirs = literal_masks.plain_masks(status, chosen, masks)
    np.testing.assert_allclose(plain, theirs, rtol=1e-5)


def test_boxes_on_the_grid_agree_with_the_slow_form():
    boxes = np.float32([[0, 0, 64, 48], [10.5, 3, 40, 20], [-4, 30, 7, 70]])
    find = functools.partial(between_corners, cells=(7, 9), canvas=CANVAS)
    found = compiled(find)(boxes)
    for ours, box in zip(found, boxes, strict=True):
        theirs = literal_masks.box_mask(box, CANVAS, (7, 9))
        np.testing.assert_array_equal(ours, theirs == 1)

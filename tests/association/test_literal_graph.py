"""The slow reference of RGNNVIS itself, against numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from tests.association import literal_network
from tests.association.literal_graph import Frame, allocate, start, step
from tests.association.literal_layers import PAPER, Options, lstm
from tests.association.literal_memory import Appearance, next_appearance
from tests.association.literal_network import INVALID, iou, log_likelihood
from tests.association.literal_weights import Widths, random_weights

WIDTHS = Widths()
LOOSE = replace(PAPER, match_threshold=-2.0, start_threshold=-2.0)


def _frame(boxes, *, x=None, classes=None, ids=None) -> Frame:
    """A 100 x 100 frame; detection n has logit 1 for classes[n] and score .8."""
    N = len(boxes)
    logits = np.zeros((N, WIDTHS.classes))
    for n, c in enumerate(classes or []):
        logits[n, c] = 1.0
    return Frame(
        valid=np.ones(N, bool),
        logits=logits,
        boxes=np.array(boxes, float).reshape(N, 4),
        x=np.zeros((N, WIDTHS.appearance)) if x is None else np.array(x, float),
        scores=np.full(N, 0.8),
        canvas=(100, 100),
        x0=np.zeros(WIDTHS.appearance),
        ids=ids,
    )


def _zeros(options: Options, **biases: float):
    """Weights 0, so that every logit is the bias of its model."""
    weights = random_weights(options, WIDTHS, np.random.default_rng(0), scale=0)
    for name, value in biases.items():
        weights[f"{name}/b"] = np.full_like(weights[f"{name}/b"], value)
    return weights


LEFT, RIGHT = [0, 0, 50, 100], [50, 0, 100, 100]


def test_likelihood_is_the_sum_over_channels():
    x, variance = np.array([1.0, 2.0]), np.array([1.0, 4.0])
    value = log_likelihood(x, np.zeros(2), variance)
    np.testing.assert_allclose(value, -3.531024, atol=1e-6)
    rng = np.random.default_rng(0)
    x, mean, deviation = rng.normal(size=(3, 7))
    expected = norm.logpdf(x, mean, abs(deviation)).sum()
    np.testing.assert_allclose(log_likelihood(x, mean, deviation**2), expected)


def test_iou_of_boxes():
    left, right = np.array(LEFT, float), np.array(RIGHT, float)
    half = np.array([0.0, 0, 25, 100])
    np.testing.assert_allclose(
        [iou(left, left), iou(left, right), iou(left, half)], [1, 0, 0.5], atol=1e-9
    )


@pytest.mark.parametrize(
    ("rule", "variance"), [("released", 1.441667), ("paper", 2.775), ("nix2", 1.275)]
)
def test_update_of_the_appearance(rule, variance):
    # kappa = .5, nu = .25, s2 = .1, mean 0, variance 1, x = 2.
    options = replace(PAPER, variance_rule=rule)
    weights = _zeros(options, nu=-np.log(3), s2=np.log(np.expm1(0.1)))
    old = Appearance(np.zeros(1), np.ones(1), np.zeros((4, 1)))
    embedding, x = np.ones(WIDTHS.embedding), np.array([2.0])
    new = next_appearance(weights, options, old, embedding, x)
    np.testing.assert_allclose(new.mean, [1.0])
    np.testing.assert_allclose(new.variance, [variance], atol=1e-6)


def test_first_appearance_in_both_forms():
    x = [[2.0] * WIDTHS.appearance]
    for options, mean, variance in (
        # softplus(0) = .693147.
        (LOOSE, 2.0, 0.693147),
        # From mean 0 at once: kappa = nu = .5, s2 = softplus(0), q = .25.
        (replace(LOOSE, first_appearance="update"), 1.0, 0.693147 + 0.25 * 4),
    ):
        options = replace(options, variance_rule="released")
        weights = _zeros(options)
        state = start(weights, options, np.zeros(WIDTHS.appearance), 1)
        state, _ = step(weights, options, state, _frame([LEFT], x=x))
        np.testing.assert_allclose(state.mean[0], mean, atol=1e-6)
        np.testing.assert_allclose(state.variance[0], variance, atol=1e-6)


def test_the_empty_track_is_updated_in_every_frame():
    options = replace(LOOSE, variance_rule="nix2")
    weights = _zeros(options)
    state = start(weights, options, np.full(WIDTHS.appearance, 4.0), 1)
    frame = replace(_frame([]), x0=np.full(WIDTHS.appearance, 2.0))
    state, _ = step(weights, options, state, frame)
    # Halfway from 4 to 2; .5 log 2 + .5 log 2 + .25 (2 - 4) ** 2.
    np.testing.assert_allclose(state.mean0, 3.0)
    np.testing.assert_allclose(state.variance0, np.log(2) + 1)


@pytest.mark.parametrize(
    ("order", "chosen"), [("confidence", [-1, 1, -1, 2]), ("logit", [-1, 3, -1, 1])]
)
def test_surplus_candidates_are_lost(order, chosen):
    options = replace(PAPER, start_order=order)
    made = allocate(
        options,
        np.array([1, 0, 2, 0]),
        np.full(4, -1),
        [1, 2, 3],
        np.array([9.0, 2.0, 1.0, 3.0]),
    )
    np.testing.assert_array_equal(made.status, [1, 1, 2, 1])
    np.testing.assert_array_equal(made.born, [False, True, False, True])
    np.testing.assert_array_equal(made.chosen, chosen)


def test_a_full_memory_opens_nothing():
    made = allocate(PAPER, np.array([2, 1]), np.array([-1, 0]), [0], np.ones(1))
    np.testing.assert_array_equal(made.status, [2, 1])
    assert not made.born.any()


def test_matches_and_openings_are_independent():
    weights = _zeros(LOOSE)  # all logits 0, above -2: everything matches and opens
    state = start(weights, LOOSE, np.zeros(WIDTHS.appearance), 5)
    state, first = step(weights, LOOSE, state, _frame([LEFT, RIGHT]))
    np.testing.assert_array_equal(first.chosen, [0, 1, -1, -1, -1])
    assert (first.match == INVALID).all()
    state, out = step(weights, LOOSE, state, _frame([LEFT, RIGHT]))
    # Both tracks take detection 0, which opens a third track as well.
    np.testing.assert_array_equal(out.chosen, [0, 0, 0, 1, -1])
    np.testing.assert_array_equal(out.status, [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(out.born, [False, False, True, True, False])
    np.testing.assert_array_equal(out.match[:2], 0.0)
    assert (out.match[2:] == INVALID).all()
    np.testing.assert_array_equal(out.start, 0.0)


def test_thresholds_at_equality():
    options = replace(PAPER, match_threshold=0.0, start_threshold=-1.0)
    weights = _zeros(options)
    state = start(weights, options, np.zeros(WIDTHS.appearance), 2)
    state, _ = step(weights, options, state, _frame([LEFT]))
    strict = replace(options, start_threshold=0.0)
    _, out = step(weights, strict, state, _frame([LEFT]))
    np.testing.assert_array_equal(out.status, [1, 0])  # matched; nothing opened


@pytest.mark.parametrize(("boxes", "overlap"), [("kept", 1.0), ("zero", 0.0)])
def test_an_inactive_track_is_carried_and_revived(boxes, overlap):
    options = replace(LOOSE, inactive_boxes=boxes, start_threshold=1.0)
    weights = random_weights(options, WIDTHS, np.random.default_rng(3))
    opening = replace(options, start_threshold=-1e4)
    x = np.random.default_rng(4).normal(size=(1, WIDTHS.appearance))
    state = start(weights, options, np.zeros(WIDTHS.appearance), 1)
    born, _ = step(weights, opening, state, _frame([LEFT], x=x))
    state = born
    for _ in range(3):
        state, out = step(weights, options, state, _frame([]))
        np.testing.assert_array_equal(out.status, [2])
        np.testing.assert_array_equal(out.chosen, [-1])
    np.testing.assert_array_equal(state.mean, born.mean)
    np.testing.assert_array_equal(state.variance, born.variance)
    assert not np.allclose(state.embedding, born.embedding)
    edges = literal_network.inputs(options, state, _frame([LEFT], x=x)).e
    np.testing.assert_allclose(edges[0, 0][1], 2 * overlap - 1, atol=1e-9)
    matching = replace(options, match_threshold=-1e4)
    state, out = step(weights, matching, state, _frame([LEFT], x=x + 1))
    np.testing.assert_array_equal(out.status, [1])
    np.testing.assert_array_equal(state.boxes, [LEFT])
    assert not np.allclose(state.mean, born.mean)


def test_edges_before_the_first_block():
    weights = _zeros(LOOSE)
    state = start(weights, LOOSE, np.zeros(WIDTHS.appearance), 1)
    state, _ = step(weights, LOOSE, state, _frame([LEFT]))
    wide = replace(_frame([[0, 0, 25, 100]]), canvas=(100, 200))  # height, width
    now = literal_network.inputs(LOOSE, state, wide)
    ll = norm.logpdf(0, 0, np.sqrt(np.log(2))) * WIDTHS.appearance
    np.testing.assert_allclose(now.e[0, 0], [-4 + 0.01 * ll, 0.0], atol=1e-6)
    assert now.e0[0].shape == (1,)
    np.testing.assert_allclose(now.delta[0][-4:], [-1, -1, -0.75, 1])


def test_gates_weigh_the_sums():
    # One track and two detections, D = 1: edges relu(e + 1), gate sigma(b).
    weights = {"1/f_e/w": np.array([[0.0], [0.0], [1.0]]), "1/f_e/b": np.ones(1)}
    weights |= {"1/f_e0/w": np.zeros((2, 1)), "1/f_e0/b": np.full(1, 5.0)}
    for name in ("t", "t0", "d"):
        weights |= {f"1/f_{name}/w": np.ones((2, 1)), f"1/f_{name}/b": np.zeros(1)}
    for name, gate in (("t", 0.25), ("t0", 0.5), ("d", 0.75), ("d0", 0.2)):
        weights |= {f"1/g_{name}.{k}/w": np.zeros((1, 1)) for k in (1, 2)}
        weights |= {f"1/g_{name}.1/b": np.zeros(1)}
        weights |= {f"1/g_{name}.2/b": np.full(1, np.log(gate / (1 - gate)))}
    for name in ("1/f_e.residual", "1/f_e0.residual"):
        weights |= {f"{name}.{k}/w": np.zeros((1, 1)) for k in (1, 2, 3)}
        weights |= {f"{name}.{k}/b": np.zeros(1) for k in (1, 2, 3)}
    old = literal_network.Vertices(
        tau={4: np.array([10.0])},
        tau0=np.array([20.0]),
        delta={1: np.array([30.0]), 3: np.array([40.0])},
        e={(4, 1): np.array([1.0]), (4, 3): np.array([-7.0])},
        e0={1: np.zeros(0), 3: np.zeros(0)},
    )
    new = literal_network.interaction(weights, PAPER, 1, old)
    # Edges 2 and 0, both edges of the empty track 5.
    np.testing.assert_allclose(new.tau[4], [10 + 0.25 * 2])
    np.testing.assert_allclose(new.tau0, [20 + 0.5 * 10])
    np.testing.assert_allclose(new.delta[1], [30 + 0.2 * 5 + 0.75 * 2])
    np.testing.assert_allclose(new.delta[3], [40 + 0.2 * 5])


def test_a_new_track_starts_from_its_detection():
    options = replace(LOOSE, recurrence="none")
    weights = _zeros(options, **{"3/f_d": 3.0, "3/f_t": 5.0, "3/f_t0": 7.0})
    state = start(weights, options, np.zeros(WIDTHS.appearance), 1)
    for frame, value in ((_frame([LEFT]), 3.0), (_frame([LEFT]), 5.0), (_frame([]), 5)):
        state, out = step(weights, options, state, frame)
        np.testing.assert_array_equal(out.embedding, value)
        np.testing.assert_array_equal(state.embedding0, 7.0)


def test_gates_are_forget_input_output_cell():
    # Gates 1/4, 1/3 and 1/2, value tanh(1), cell 8 before.
    output, cell = lstm(
        np.log([[1 / 3], [1 / 2], [1], [np.e]]).ravel(), np.full(1, 8.0)
    )
    np.testing.assert_allclose(cell, 8 / 4 + np.tanh(1) / 3)
    np.testing.assert_allclose(output, np.tanh(cell) / 2)


def test_recurrence_of_a_new_and_an_old_track():
    # Output of the graph 0 and gate biases 0: all gates .5, cell value tanh(b).
    options = LOOSE
    weights = _zeros(options)
    weights["gates/b"][-WIDTHS.embedding :] = 1.0
    state = start(weights, options, np.zeros(WIDTHS.appearance), 1)
    state, _ = step(weights, options, state, _frame([LEFT]))
    cell = 0.5 * np.tanh(1)
    np.testing.assert_allclose(state.cell[0], cell)
    np.testing.assert_allclose(state.embedding[0], 0.5 * np.tanh(cell))
    state, out = step(weights, options, state, _frame([]))
    np.testing.assert_allclose(state.cell[0], 1.5 * cell)
    np.testing.assert_allclose(out.embedding[0], 0.5 * np.tanh(1.5 * cell))
    assert not state.embedding0.any()


def test_pairs_open_what_no_track_wants():
    options = replace(LOOSE, graph="pairs")
    weights = _zeros(options, **{"pair.3": 1.0})
    state = start(weights, options, np.zeros(WIDTHS.appearance), 2)
    state, out = step(weights, options, state, _frame([LEFT]))
    np.testing.assert_array_equal(out.start, [10.0])
    state, out = step(weights, options, state, _frame([LEFT]))
    np.testing.assert_array_equal(out.match, [[1.0], [INVALID]])
    np.testing.assert_array_equal(out.start, [-1.0])  # above -2: opens nonetheless
    np.testing.assert_array_equal(out.chosen, [0, 0])


def test_heuristic_scores_and_assignment():
    options = replace(PAPER, graph="heuristic", scoring="average")
    weights = _zeros(options)
    one = np.eye(WIDTHS.appearance)
    state = start(weights, options, np.zeros(WIDTHS.appearance), 4)
    first = _frame([LEFT, RIGHT], x=one[:2], classes=[1, 2])
    state, out = step(weights, options, state, first)
    np.testing.assert_array_equal(out.start, [0.0, 0.0])  # the only choice
    np.testing.assert_array_equal(out.status, [1, 1, 0, 0])
    # Detection 0 resembles track 0; detection 1 neither, and its class is another.
    second = _frame([LEFT, [90, 90, 95, 95]], x=one[[0, 5]], classes=[1, 3])
    state, out = step(weights, options, state, second)
    new = -np.log(np.e + 2)
    np.testing.assert_allclose(out.match[0, 0], 1 + new + 0.8 + 2 + 10, atol=1e-6)
    np.testing.assert_allclose(out.match[1, 0], new + 0.8, atol=1e-6)
    # Three equal columns, then confidence and overlap: track 1 takes detection 1.
    overlap = 25 / 5000
    np.testing.assert_allclose(
        out.match[:2, 1], -np.log(3) + 0.8 + np.array([0, 2 * overlap]), atol=1e-6
    )
    np.testing.assert_allclose(out.start, [new, -np.log(3)])
    np.testing.assert_array_equal(out.chosen, [0, 1, -1, -1])
    np.testing.assert_array_equal(state.mean[1], one[5])
    # Without the extra terms "new" ties with both tracks: the tie serves all.
    plain = replace(options, heuristic_terms=False)
    state, out = step(weights, plain, state, _frame([LEFT], x=one[[3]]))
    np.testing.assert_array_equal(out.chosen, [0, 0, 0, -1])


def test_a_track_whose_best_detection_prefers_another_goes_without():
    options = replace(PAPER, graph="heuristic", heuristic_terms=False)
    weights = _zeros(options)
    one = np.eye(WIDTHS.appearance)
    state = start(weights, options, np.zeros(WIDTHS.appearance), 3)
    state, _ = step(weights, options, state, _frame([LEFT, LEFT], x=one[:2]))
    state, out = step(weights, options, state, _frame([LEFT], x=[3 * one[0] + one[1]]))
    np.testing.assert_array_equal(out.status, [1, 2, 0])


def test_scores_of_a_low_rank_never_count():
    options = replace(PAPER, graph="heuristic", heuristic_terms=False)
    weights = _zeros(options)
    one = np.eye(WIDTHS.appearance)
    state = start(weights, options, np.zeros(WIDTHS.appearance), 3)
    state, _ = step(weights, options, state, _frame([LEFT, LEFT], x=[one[0], -one[0]]))
    _, out = step(weights, options, state, _frame([LEFT], x=[20 * one[0]]))
    np.testing.assert_allclose(out.match[0], [0.0], atol=1e-6)
    np.testing.assert_array_equal([out.match[1, 0], out.start[0]], INVALID)
    np.testing.assert_array_equal(out.chosen, [0, -1, -1])


def test_class_scores_that_are_not_learned():
    frames = [_frame([LEFT], classes=[c]) for c in (2, 3, 3)]
    expected = {
        "average": [0, 0, 1 / 3, 2 / 3, 0],
        "running_average": [0, 0, 0.81, 0.09 + 0.1, 0],
        "majority": [0, 0, 0, np.log(5 * 0.8) - np.log(0.2), 0],
    }
    for scoring, logits in expected.items():
        options = replace(LOOSE, scoring=scoring)
        weights = _zeros(options)
        state = start(weights, options, np.zeros(WIDTHS.appearance), 1)
        for frame in frames:
            state, out = step(weights, options, state, frame)
        np.testing.assert_allclose(out.classes[0], logits, atol=1e-5)


def test_identities_are_claimed_once():
    weights = _zeros(LOOSE)
    state = start(weights, LOOSE, np.zeros(WIDTHS.appearance), 4)
    first = _frame([LEFT, RIGHT], ids=np.array([7, 0]))
    state, _ = step(weights, LOOSE, state, first)
    second = _frame([LEFT, RIGHT], ids=np.array([7, 8]))
    state, _ = step(weights, LOOSE, state, second)
    np.testing.assert_array_equal(state.ids, [7, 0, 0, 8])
    np.testing.assert_array_equal(state.raw_ids, [7, 0, 7, 8])
    np.testing.assert_array_equal(state.birth, [0, 0, 1, 1])

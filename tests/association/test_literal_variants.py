"""Properties of the slow reference of RGNNVIS that hold under every switch."""

from dataclasses import replace

import numpy as np
import pytest

from tests.association.literal_graph import Frame, start, step
from tests.association.literal_layers import PAPER, PLUS, RELEASED
from tests.association.literal_network import INVALID
from tests.association.literal_weights import Widths, random_frame, random_weights

WIDTHS = Widths()
VARIANTS = {
    "paper": PAPER,
    "released": RELEASED,
    "plus": PLUS,
    "pairs": replace(PAPER, graph="pairs"),
    "pairs without appearance": replace(PAPER, graph="pairs", appearance="none"),
    "heuristic": replace(PAPER, graph="heuristic"),
    "mlp": replace(PLUS, node_updates="mlp"),
    "one block": replace(PAPER, blocks=1),
    "three blocks": replace(PLUS, blocks=3),
    "no residuals": replace(PAPER, residuals=False),
    "simple": replace(PAPER, recurrence="simple"),
    "no recurrence": replace(PAPER, recurrence="none"),
    "no appearance": replace(PAPER, appearance="none"),
    "vertex": replace(PAPER, appearance="vertex"),
    "constant": replace(RELEASED, appearance="constant_variance"),
    "lstm": replace(PAPER, appearance="lstm"),
    "majority": replace(PAPER, scoring="majority"),
    "average": replace(PAPER, scoring="average"),
    "running average": replace(PAPER, scoring="running_average"),
    "by logit": replace(PAPER, start_order="logit"),
}


def _permuted(frame: Frame, order) -> Frame:
    return replace(
        frame,
        valid=frame.valid[order],
        logits=frame.logits[order],
        boxes=frame.boxes[order],
        x=frame.x[order],
        scores=frame.scores[order],
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_and_order_of_detections_do_not_matter(name):
    options = replace(VARIANTS[name], match_threshold=-0.3, start_threshold=-0.3)
    rng = np.random.default_rng(5)
    weights = random_weights(options, WIDTHS, rng)
    x0 = rng.normal(size=WIDTHS.appearance)
    states = [start(weights, options, x0, M) for M in (4, 6)]
    outs = []
    for _ in range(3):
        frame = random_frame(WIDTHS, rng, detections=4, valid=3)
        order = np.array([2, 0, 1])
        _, turned = step(weights, options, states[0], _permuted(frame, order))
        frames = (frame, _permuted(frame, np.arange(3)))
        both = [
            step(weights, options, *pair) for pair in zip(states, frames, strict=True)
        ]
        states, outs = zip(*both, strict=True)
        np.testing.assert_allclose(turned.match, outs[0].match[:, order], atol=1e-9)
        np.testing.assert_allclose(turned.start, outs[0].start[order], atol=1e-9)
        np.testing.assert_array_equal(outs[0].match[:, 3], INVALID)
        if (outs[1].status != 0).sum() > 4 or options.graph == "pairs":
            continue  # the smaller memory is full
        np.testing.assert_allclose(outs[0].match[:, :3], outs[1].match[:4])
        np.testing.assert_allclose(outs[0].embedding, outs[1].embedding[:4])
    assert all(np.isfinite(value).all() for value in outs[0])
    assert (outs[0].status != 0).any()


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "heuristic"},
        {"node_updates": "mlp"},
        {"blocks": 1},
        {"blocks": 3},
        {"residuals": False},
        {"recurrence": "simple"},
        {"recurrence": "none"},
        {"hidden_feedback": True},
        {"appearance": "constant_variance"},
        {"appearance": "lstm"},
        {"variance_rule": "released"},
        {"variance_rule": "nix2"},
        {"first_appearance": "update"},
        {"inactive_boxes": "zero"},
        {"layer_norm": True},
        {"match_threshold": 9.0},
        {"start_threshold": 9.0},
        {"start_order": "logit"},
        {"scoring": "majority"},
        {"scoring": "average"},
        {"scoring": "running_average"},
    ],
    ids=lambda change: "-".join(str(part) for item in change.items() for part in item),
)
def test_every_switch_changes_an_output(change):
    base = replace(PAPER, match_threshold=-0.2, start_threshold=-0.2)
    options = replace(base, **change)
    # One set of weights for both, so that only what the switch does can differ.
    weights = random_weights(options, WIDTHS, np.random.default_rng(6))
    weights |= random_weights(base, WIDTHS, np.random.default_rng(6))
    results = []
    for each in (base, options):
        rng = np.random.default_rng(7)
        state = start(weights, each, rng.normal(size=WIDTHS.appearance), 5)
        outs = []
        for valid in (3, 0, 4, 2, 4):
            frame = random_frame(WIDTHS, rng, detections=4, valid=valid)
            state, out = step(weights, each, state, frame)
            outs.append(out)
        results.append(outs)
    assert any(
        not np.allclose(a, b)
        for one, other in zip(*results, strict=True)
        for a, b in zip(one, other, strict=True)
    )

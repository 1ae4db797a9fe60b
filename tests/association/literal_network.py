"""Graph of one frame in the literal RGNNVIS: edges, blocks, logits.

Part of the slow reference described in `literal_graph`. Vertices and edges are
dictionaries of valid ones only, so that no sum includes padding. `m` is a slot with a
track, `n` a valid detection; 0 in a name is the empty track.
"""

from typing import NamedTuple

import numpy as np

from tests.association.literal_layers import (
    Options,
    Weights,
    layer_norm,
    linear,
    relu,
    residual,
    sigmoid,
)

INVALID = -1e5  # logit of a pair that does not exist


class Vertices(NamedTuple):
    """Vertices and edges between two blocks."""

    tau: dict[int, np.ndarray]  # of tracks
    tau0: np.ndarray
    delta: dict[int, np.ndarray]  # of detections
    e: dict[tuple[int, int], np.ndarray]
    e0: dict[int, np.ndarray]


class Network(NamedTuple):
    """Output of the graph for a frame."""

    match: np.ndarray  # (M, N) logits, INVALID for pairs that do not exist
    start: np.ndarray  # (N) logits, INVALID for padded detections
    tau: dict[int, np.ndarray]  # embeddings before the recurrence, of tracks,
    tau0: np.ndarray  # of the empty track,
    delta: dict[int, np.ndarray]  # and of a track that each detection would open


def log_likelihood(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    """Returns the log density of a diagonal Gaussian; variance is at least 1e-6."""
    total = len(x) * np.log(2 * np.pi)
    for x_a, mean_a, variance_a in zip(x, mean, variance, strict=True):
        variance_a = max(variance_a, 1e-6)
        total += np.log(variance_a) + (x_a - mean_a) ** 2 / variance_a
    return -0.5 * total


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the IoU of two boxes, with 1e-7 added to intersection and union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0.0) * max(height, 0.0)
    area_a, area_b = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return (intersection + 1e-7) / (area_a + area_b - intersection + 1e-7)


def inputs(options: Options, state, frame) -> Vertices:
    """Returns vertices and edges before the first block."""
    tracks = [m for m in range(len(state.status)) if state.status[m] != 0]
    detections = [n for n in range(len(frame.valid)) if frame.valid[n]]
    likelihoods = options.appearance not in ("vertex", "none")
    height, width = frame.canvas
    delta, e, e0 = {}, {}, {}
    for n in detections:
        box = frame.boxes[n] * 2 / np.array([width, height, width, height]) - 1
        delta[n] = np.concatenate([frame.logits[n], box])
        if options.appearance == "vertex":
            delta[n] = np.concatenate([delta[n], frame.x[n]])
        e0[n] = np.zeros(0)
        if likelihoods:
            e0[n] = np.array([_scaled(frame.x[n], state.mean0, state.variance0)])
    for m in tracks:
        for n in detections:
            e[m, n] = np.array([2 * iou(state.boxes[m], frame.boxes[n]) - 1])
            if likelihoods:
                a = _scaled(frame.x[n], state.mean[m], state.variance[m])
                e[m, n] = np.array([a, e[m, n][0]])
    tau = {m: state.embedding[m] for m in tracks}
    return Vertices(tau, state.embedding0, delta, e, e0)


def _scaled(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    return -4 + 0.01 * log_likelihood(x, mean, variance)


def interaction(
    weights: Weights, options: Options, block: int, old: Vertices
) -> Vertices:
    """Computes equation 1: new edges, then vertices from sums over the new edges."""

    def f(name, *parts):
        return _update(weights, options, f"{block}/f_{name}", np.concatenate(parts))

    def g(name, edge):
        return _gated(weights, options, f"{block}/g_{name}", edge)

    nothing = np.zeros_like(weights[f"{block}/f_e/b"])
    e = {(m, n): f("e", old.tau[m], old.delta[n], old.e[m, n]) for m, n in old.e}
    e0 = {n: f("e0", old.tau0, old.delta[n], old.e0[n]) for n in old.e0}
    tau, delta = {}, {}
    for m in old.tau:
        message = nothing
        for n in old.delta:
            message = message + g("t", e[m, n])
        tau[m] = f("t", old.tau[m], message)
    message = nothing
    for n in old.delta:
        message = message + g("t0", e0[n])
    tau0 = f("t0", old.tau0, message)
    for n in old.delta:
        message = g("d0", e0[n])
        for m in old.tau:
            message = message + g("d", e[m, n])
        delta[n] = f("d", old.delta[n], message)
    return Vertices(tau, tau0, delta, e, e0)


def _update(weights: Weights, options: Options, name: str, x: np.ndarray) -> np.ndarray:
    """Computes f: linear and ReLU, plus the additions of options and first block."""
    y = relu(linear(weights, name, x))
    if options.node_updates == "mlp":
        y = relu(linear(weights, f"{name}.second", y))
    if name in ("1/f_e", "1/f_e0"):
        y = residual(weights, f"{name}.residual", y, layers=options.bottleneck)
    if options.layer_norm:
        y = layer_norm(weights, name.replace("f_", "norm_"), y)
    return y


def _gated(weights: Weights, options: Options, name: str, e: np.ndarray) -> np.ndarray:
    """Returns g(e) * e, or e itself without gates."""
    if options.node_updates == "mlp":
        return e
    hidden = relu(linear(weights, f"{name}.1", e))
    return sigmoid(linear(weights, f"{name}.2", hidden)) * e


def residual_block(
    weights: Weights, options: Options, block: int, old: Vertices
) -> Vertices:
    """Computes equation 2: five residuals, for each vertex and edge separately."""

    def one(name, x):
        return residual(weights, f"{block}/{name}", x, layers=options.bottleneck)

    return Vertices(
        tau={m: one("t", x) for m, x in old.tau.items()},
        tau0=one("t0", old.tau0),
        delta={n: one("d", x) for n, x in old.delta.items()},
        e={pair: one("e", x) for pair, x in old.e.items()},
        e0={n: one("e0", x) for n, x in old.e0.items()},
    )


def run_graph(weights: Weights, options: Options, state, frame) -> Network:
    """Runs all blocks and the two logistic models."""
    now = inputs(options, state, frame)
    for k in range(options.blocks):
        now = interaction(weights, options, 2 * k + 1, now)
        if options.residuals:
            now = residual_block(weights, options, 2 * k + 2, now)
    match = np.full((len(state.status), len(frame.valid)), INVALID)
    start = np.full(len(frame.valid), INVALID)
    for m, n in now.e:
        match[m, n] = linear(weights, "match", now.e[m, n])[0]
    for n in now.e0:
        start[n] = linear(weights, "start", now.e0[n])[0]
    return Network(match, start, now.tau, now.tau0, now.delta)


def run_pairs(weights: Weights, options: Options, state, frame) -> Network:
    """Runs without a graph: each pair, then each track with its best detection."""
    now = inputs(options, state, frame)
    match = np.full((len(state.status), len(frame.valid)), INVALID)
    start = np.full(len(frame.valid), INVALID)
    for m, n in now.e:
        hidden = relu(linear(weights, "pair.1", now.e[m, n]))
        hidden = relu(linear(weights, "pair.2", hidden))
        match[m, n] = linear(weights, "pair.3", hidden)[0]
    for n in now.delta:
        columns = [match[m, n] if m in now.tau else -10.0 for m in range(len(match))]
        start[n] = -max(columns)
    tau = {}
    for m in now.tau:
        seen = [n for n in now.delta if match[m, n] > -100]
        best = max(seen, key=lambda n: match[m, n]) if seen else None
        tau[m] = _pair_track(weights, now.tau[m], now.delta[best] if seen else None)
    nothing = np.zeros_like(now.tau0)
    delta = {n: _pair_track(weights, nothing, now.delta[n]) for n in now.delta}
    return Network(match, start, tau, now.tau0, delta)


def _pair_track(
    weights: Weights, tau: np.ndarray, delta: np.ndarray | None
) -> np.ndarray:
    if delta is None:
        delta = np.zeros(weights["track.1/w"].shape[0] - len(tau))
    hidden = relu(linear(weights, "track.1", np.concatenate([tau, delta])))
    return relu(linear(weights, "track.2", hidden))

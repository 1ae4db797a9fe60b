"""Memory of the literal RGNNVIS: state, recurrence, appearance and class scores.

Part of the slow reference described in `literal_graph`. All functions treat one track
at a time.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tests.association.literal_layers import (
    Options,
    Weights,
    linear,
    lstm,
    sigmoid,
    softplus,
)

FREE, ACTIVE, INACTIVE = 0, 1, 2


@dataclass(frozen=True)
class State:
    """Memory between two frames; row m of an array belongs to slot m."""

    frames: int  # frames seen
    status: np.ndarray  # (M) FREE, ACTIVE or INACTIVE
    embedding: np.ndarray  # (M, D) outputs of the recurrence, tau
    cell: np.ndarray  # (M, D)
    mean: np.ndarray  # (M, A)
    variance: np.ndarray  # (M, A)
    units: np.ndarray  # (M, 4, A) output and cell of both LSTMs of the appearance
    boxes: np.ndarray  # (M, 4) pixels
    embedding0: np.ndarray  # (D) of the empty track, as the next four
    cell0: np.ndarray  # (D)
    mean0: np.ndarray  # (A)
    variance0: np.ndarray  # (A)
    units0: np.ndarray  # (4, A)
    ids: np.ndarray  # (M) object, 0 = none or claimed by an earlier track
    raw_ids: np.ndarray  # (M) object of the detection that opened the track, 0 = none
    birth: np.ndarray  # (M) frame in which the track was opened, counted from 0
    seen: np.ndarray  # (M) frames in which the track had a detection
    votes: np.ndarray  # (M, C) of these frames, those with this class
    confidence: np.ndarray  # (M) sum over them of the score of the detection
    logits_sum: np.ndarray  # (M, C) sum over them of the logits of the detection
    logits_running: np.ndarray  # (M, C) 0.9 of the former, 0.1 of the new logits


class Appearance(NamedTuple):
    """Appearance of one track."""

    mean: np.ndarray  # (A)
    variance: np.ndarray  # (A)
    units: np.ndarray  # (4, A) mean LSTM: output, cell; variance LSTM: output, cell


def start(weights: Weights, options: Options, x0: np.ndarray, tracks: int) -> State:
    """Returns the memory before the first frame, whose frame appearance is `x0`."""
    A = len(x0)
    D, C = weights["classes/w"].shape
    variance = _start_variance(weights, options, "rho", A)
    return State(
        frames=0,
        status=np.zeros(tracks, int),
        embedding=np.zeros((tracks, D)),
        cell=np.zeros((tracks, D)),
        mean=np.zeros((tracks, A)),
        variance=np.tile(variance, (tracks, 1)),
        units=np.zeros((tracks, 4, A)),
        boxes=np.zeros((tracks, 4)),
        embedding0=np.zeros(D),
        cell0=np.zeros(D),
        mean0=np.array(x0, float),
        variance0=_start_variance(weights, options, "rho0", A),
        units0=np.zeros((4, A)),
        ids=np.zeros(tracks, int),
        raw_ids=np.zeros(tracks, int),
        birth=np.zeros(tracks, int),
        seen=np.zeros(tracks, int),
        votes=np.zeros((tracks, C)),
        confidence=np.zeros(tracks),
        logits_sum=np.zeros((tracks, C)),
        logits_running=np.zeros((tracks, C)),
    )


def _start_variance(
    weights: Weights, options: Options, name: str, width: int
) -> np.ndarray:
    if options.appearance in ("vertex", "none"):
        return np.ones(width)  # never read
    return softplus(weights[name]) * np.ones(width)


def recur(
    weights: Weights,
    options: Options,
    z: np.ndarray,
    embedding: np.ndarray,
    cell: np.ndarray,
    *,
    zero: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes equations 5 and 6 for one track: new embedding and cell.

    Args:
      z: output of the graph.
      embedding, cell: of the previous frame.
      zero: "0" for the empty track, which has its own weights, otherwise "".
    """
    if options.recurrence == "none" or options.graph == "heuristic":
        return z, cell
    if options.recurrence == "simple":
        gate = sigmoid(linear(weights, f"simple{zero}.gate", z))
        return gate * np.tanh(linear(weights, f"simple{zero}.value", z)), cell
    gates = linear(weights, f"gates{zero}", z)
    if options.hidden_feedback:
        gates = gates + linear(weights, f"gates{zero}.hidden", embedding)
    return lstm(gates, cell)


def first_appearance(
    weights: Weights, options: Options, embedding: np.ndarray, x: np.ndarray
) -> Appearance:
    """Returns the appearance of a new track, whose detection has appearance `x`."""
    variance = _start_variance(weights, options, "rho", len(x))
    blank = Appearance(np.zeros_like(x), variance, np.zeros((4, len(x))))
    if options.graph == "heuristic":
        return blank._replace(mean=x)
    if options.appearance in ("vertex", "none"):
        return blank
    if options.appearance == "lstm" or options.first_appearance == "update":
        return next_appearance(weights, options, blank, embedding, x)
    return blank._replace(mean=x)


def next_appearance(
    weights: Weights,
    options: Options,
    old: Appearance,
    embedding: np.ndarray,
    x: np.ndarray,
) -> Appearance:
    """Computes equation 4 or its replacement: appearance after a detection of `x`.

    Args:
      embedding: of the track, after the recurrence of this frame.
    """
    if options.graph == "heuristic":
        return old._replace(mean=x)
    if options.appearance in ("vertex", "none"):
        return old
    if options.appearance == "lstm":
        return _lstm_appearance(weights, old, x)
    kappa = sigmoid(linear(weights, "kappa", embedding))
    mean = kappa * x + (1 - kappa) * old.mean
    if options.appearance == "constant_variance":
        return old._replace(mean=mean)
    nu = sigmoid(linear(weights, "nu", embedding))
    s2 = softplus(linear(weights, "s2", embedding))
    q = {
        "paper": kappa * (1 - nu) / (kappa + nu + 1e-8),
        "released": kappa * nu / (kappa + nu + 1e-8),
        "nix2": nu * (1 - kappa),
    }[options.variance_rule]
    variance = nu * s2 + (1 - nu) * old.variance + q * (x - old.mean) ** 2
    return old._replace(mean=mean, variance=variance)


def _lstm_appearance(weights: Weights, old: Appearance, x: np.ndarray) -> Appearance:
    results = []
    for name, (output, cell) in (
        ("lstm_mean", old.units[:2]),
        ("lstm_var", old.units[2:]),
    ):
        gates = linear(weights, f"{name}.x", x) + linear(weights, f"{name}.h", output)
        results.append(lstm(gates, cell))
    mean = linear(weights, "lstm_mean.out", results[0][0])
    variance = softplus(linear(weights, "lstm_var.out", results[1][0]))
    return Appearance(mean, variance, np.stack([*results[0], *results[1]]))


def class_logits(weights: Weights, options: Options, state: State) -> np.ndarray:
    """Returns class logits (M, C); rows of free slots are meaningless."""
    logits = np.zeros(state.votes.shape)
    for m in range(len(state.status)):
        if options.scoring == "learned":
            logits[m] = linear(weights, "classes", state.embedding[m])
        elif state.status[m] == FREE:
            continue
        elif options.scoring == "average":
            logits[m] = state.logits_sum[m] / state.seen[m]
        elif options.scoring == "running_average":
            logits[m] = state.logits_running[m]
        else:
            C = len(logits[m])
            p = state.confidence[m] / state.seen[m]
            value = np.log(C * p + 1e-7) - np.log(1 - p + 1e-7)
            logits[m, np.argmax(state.votes[m])] = value
    return logits

"""Slow reference for the association of RGNNVIS, one frame at a time.

Brissman et al., "Recurrent Graph Neural Networks for Video Instance Segmentation",
IJCV 2022, sections 3 and 4, with the switches of its Table 3, the places where the
released code of 2021 differs, and RGNNVIS++. NumPy, float64, loops over tracks and
detections; `start` and `step` are the entry points. Shapes: M slots, N detections,
D embedding, A appearance, C classes with the background as class 0.

Decisions where the sources are silent:

 1. Ties go to the lowest index: best detection, class, start order.
 2. "mlp" node updates affect every f and f0; the second layer with its ReLU comes
    before the residual of the first block. Messages are then plain sums of edges.
 3. The variance is raised to 1e-6 in the likelihood only, not in the state; kappa + nu
    has 1e-8 added wherever it divides.
 4. IoU is taken in pixels. Under "zero" a slot that is not active has a box of zeros.
 5. Edges of "vertex" and "none" have IoU alone, and none to the empty track. The mean
    of a track stays 0, that of the empty track x_0, variances 1; nothing reads them.
 6. "pairs": the pair model sees [a, IoU] or [IoU]; the track model has a ReLU after
    both layers; a new track enters it as [zeros, delta_n]; the empty track passes
    unchanged; the start logit counts -10 for each free slot, so it exceeds 10 only
    when the memory is full.
 7. "constant_variance" keeps the starting variances of tracks and of the empty track.
 8. "lstm" appearance: a new track advances from zero LSTM states in its first frame,
    whatever `first_appearance`. The empty track starts as (x_0, softplus(rho0)).
 9. "simple" and "none" leave the cell at 0 and ignore `hidden_feedback`.
10. `first_appearance` does not concern the empty track: it starts as x_0 and is
    updated in the first frame like in any other.
11. "heuristic": the graph still runs and supplies the embeddings; its logits give way
    to the heuristic scores and the thresholds to the rule. No recurrence, the empty
    track included. Means are the newest x (of the frame for the empty track),
    variances stay as they start. Classes are compared over c >= 1; the class of a
    track is of `class_logits` after the frame before. p_n is `Frame.scores`, a
    probability. A score below -10 becomes INVALID. A tie of track and "new" serves
    both.
12. "majority": votes over c >= 1; the confidence is the mean of `Frame.scores`.
13. phi always has three linear layers; residuals of the graph have `bottleneck`.
14. A frame to be skipped is one for which `step` is not called.
15. `Out.chosen` is -1 for slots that are not active.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tests.association.literal_layers import Options, Weights
from tests.association.literal_memory import (
    ACTIVE,
    FREE,
    INACTIVE,
    Appearance,
    State,
    class_logits,
    first_appearance,
    next_appearance,
    recur,
    start,
)
from tests.association.literal_network import (
    INVALID,
    Network,
    iou,
    run_graph,
    run_pairs,
)

__all__ = ["Frame", "Out", "State", "start", "step"]


@dataclass(frozen=True)
class Frame:
    """The detections of a frame, in order of confidence, and the frame as a whole."""

    valid: np.ndarray  # (N) bool
    logits: np.ndarray  # (N, C) before softmax
    boxes: np.ndarray  # (N, 4) x1 y1 x2 y2 in pixels
    x: np.ndarray  # (N, A) appearance
    scores: np.ndarray  # (N) probability of the best foreground class
    canvas: tuple[int, int]  # height and width in pixels
    x0: np.ndarray  # (A) appearance of the whole frame
    ids: np.ndarray | None = None  # (N) annotated object of a detection, 0 = none


class Out(NamedTuple):
    """Output of `step` for a frame."""

    match: np.ndarray  # (M, N) logits; INVALID for pairs that do not exist
    start: np.ndarray  # (N) logits; INVALID for padded detections
    status: np.ndarray  # (M) after the frame
    born: np.ndarray  # (M) bool: opened in this frame
    chosen: np.ndarray  # (M) detection of an active track, else -1
    embedding: np.ndarray  # (M, D) after the recurrence
    classes: np.ndarray  # (M, C) logits


class Decisions(NamedTuple):
    """Assignment of detections to slots."""

    status: np.ndarray  # (M)
    born: np.ndarray  # (M) bool
    chosen: np.ndarray  # (M), -1 = none


def step(
    weights: Weights, options: Options, state: State, frame: Frame
) -> tuple[State, Out]:
    """Processes a frame: graph, decisions, recurrence, appearance, class scores."""
    run = run_pairs if options.graph == "pairs" else run_graph
    network = run(weights, options, state, frame)
    if options.graph == "heuristic":
        match, opens = heuristic_scores(weights, options, state, frame)
        network = network._replace(match=match, start=opens)
        made = heuristic_decisions(options, state, network, frame)
    else:
        made = decide(options, state, network, frame)
    new = _recurrence(weights, options, state, network, made)
    new = _appearance(weights, options, new, made, frame)
    new = _boxes(options, new, made, frame)
    new = _class_memory(new, made, frame)
    new = _identities(state, new, made, frame)
    new = replace(new, status=made.status, frames=state.frames + 1)
    classes = class_logits(weights, options, new)
    out = Out(network.match, network.start, *made, new.embedding, classes)
    return new, out


def decide(options: Options, state: State, network: Network, frame: Frame) -> Decisions:
    """Gives each track its best detection, regardless of other and new tracks."""
    status = state.status.copy()
    chosen = np.full(len(status), -1)
    for m in range(len(status)):
        if state.status[m] == FREE:
            continue
        status[m] = INACTIVE
        best = _best(network.match[m], frame.valid)
        if best is not None and network.match[m, best] >= options.match_threshold:
            status[m], chosen[m] = ACTIVE, best
    candidates = [
        n
        for n in range(len(frame.valid))
        if frame.valid[n] and network.start[n] > options.start_threshold
    ]
    return allocate(options, status, chosen, candidates, network.start)


def _best(logits: np.ndarray, valid: np.ndarray) -> int | None:
    best = None
    for n in range(len(valid)):
        if valid[n] and (best is None or logits[n] > logits[best]):
            best = n
    return best


def allocate(
    options: Options,
    status: np.ndarray,
    chosen: np.ndarray,
    candidates: list[int],
    logits: np.ndarray,
) -> Decisions:
    """Assigns candidates to free slots in ascending order; drops the rest."""
    if options.start_order == "logit":
        candidates = sorted(candidates, key=lambda n: -logits[n])
    status, chosen = status.copy(), chosen.copy()
    born = np.zeros(len(status), bool)
    free = [m for m in range(len(status)) if status[m] == FREE]
    for m, n in zip(free, candidates, strict=False):
        status[m], born[m], chosen[m] = ACTIVE, True, n
    return Decisions(status, born, chosen)


def heuristic_scores(
    weights: Weights, options: Options, state: State, frame: Frame
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of MaskTrack R-CNN: (M, N) for each track and (N) for a new track.

    The log-softmax of a detection runs over the tracks and 0. Confidence, overlap and
    class are added to the scores of tracks, never to that of a new one.
    """
    tracks = [m for m in range(len(state.status)) if state.status[m] != FREE]
    match = np.full((len(state.status), len(frame.valid)), INVALID)
    opens = np.full(len(frame.valid), INVALID)
    classes = class_logits(weights, options, state)
    for n in range(len(frame.valid)):
        if not frame.valid[n]:
            continue
        logits = [frame.x[n] @ state.mean[m] for m in tracks] + [0.0]
        normalizer = np.logaddexp.reduce(logits)
        opens[n] = -normalizer
        for m, logit in zip(tracks, logits, strict=False):
            match[m, n] = logit - normalizer
            if options.heuristic_terms:
                same = np.argmax(classes[m, 1:]) == np.argmax(frame.logits[n, 1:])
                overlap = iou(state.boxes[m], frame.boxes[n])
                match[m, n] += frame.scores[n] + 2 * overlap + 10 * same
    return (
        np.where(match < -10, INVALID, match),
        np.where(opens < -10, INVALID, opens),
    )


def heuristic_decisions(
    options: Options, state: State, network: Network, frame: Frame
) -> Decisions:
    """Assigns each detection to its best track or a new one, whichever scores more.

    A track considers only its best detection; if that one prefers another track or a
    new one, the track gets none.
    """
    match, opens = network.match, network.start
    most = np.maximum(match.max(0), opens)
    status = state.status.copy()
    chosen = np.full(len(status), -1)
    for m in range(len(status)):
        if state.status[m] == FREE:
            continue
        status[m] = INACTIVE
        best = _best(match[m], frame.valid)
        if best is not None and match[m, best] == most[best] != INVALID:
            status[m], chosen[m] = ACTIVE, best
    candidates = [
        n for n in range(len(opens)) if frame.valid[n] and opens[n] == most[n] > INVALID
    ]
    return allocate(options, status, chosen, candidates, opens)


def _recurrence(
    weights: Weights, options: Options, state: State, network: Network, made: Decisions
) -> State:
    embedding = np.zeros_like(state.embedding)
    cell = np.zeros_like(state.cell)
    for m in range(len(made.status)):
        if made.status[m] == FREE:
            continue
        z = network.delta[made.chosen[m]] if made.born[m] else network.tau[m]
        embedding[m], cell[m] = recur(
            weights, options, z, state.embedding[m], state.cell[m], zero=""
        )
    embedding0, cell0 = recur(
        weights, options, network.tau0, state.embedding0, state.cell0, zero="0"
    )
    return replace(
        state, embedding=embedding, cell=cell, embedding0=embedding0, cell0=cell0
    )


def _appearance(
    weights: Weights, options: Options, new: State, made: Decisions, frame: Frame
) -> State:
    """Updates the appearance of active tracks and, in every frame, of the empty one."""
    mean, variance, units = new.mean.copy(), new.variance.copy(), new.units.copy()
    for m in range(len(made.status)):
        if made.status[m] != ACTIVE:
            continue
        x = frame.x[made.chosen[m]]
        if made.born[m]:
            now = first_appearance(weights, options, new.embedding[m], x)
        else:
            old = Appearance(mean[m], variance[m], units[m])
            now = next_appearance(weights, options, old, new.embedding[m], x)
        mean[m], variance[m], units[m] = now
    old0 = Appearance(new.mean0, new.variance0, new.units0)
    now0 = next_appearance(weights, options, old0, new.embedding0, frame.x0)
    return replace(
        new,
        mean=mean,
        variance=variance,
        units=units,
        mean0=now0.mean,
        variance0=now0.variance,
        units0=now0.units,
    )


def _boxes(options: Options, new: State, made: Decisions, frame: Frame) -> State:
    boxes = new.boxes.copy()
    for m in range(len(made.status)):
        if made.status[m] == ACTIVE:
            boxes[m] = frame.boxes[made.chosen[m]]
        elif options.inactive_boxes == "zero":
            boxes[m] = 0.0
    return replace(new, boxes=boxes)


def _class_memory(new: State, made: Decisions, frame: Frame) -> State:
    """Updates the class statistics of each track for scores that are not learned."""
    seen, votes, confidence = new.seen.copy(), new.votes.copy(), new.confidence.copy()
    total, running = new.logits_sum.copy(), new.logits_running.copy()
    for m in range(len(made.status)):
        if made.status[m] != ACTIVE:
            continue
        n = made.chosen[m]
        seen[m] += 1
        votes[m, 1 + np.argmax(frame.logits[n, 1:])] += 1
        confidence[m] += frame.scores[n]
        total[m] += frame.logits[n]
        if made.born[m]:
            running[m] = frame.logits[n]
        else:
            running[m] = 0.9 * running[m] + 0.1 * frame.logits[n]
    return replace(
        new,
        seen=seen,
        votes=votes,
        confidence=confidence,
        logits_sum=total,
        logits_running=running,
    )


def _identities(state: State, new: State, made: Decisions, frame: Frame) -> State:
    """Sets the objects of new tracks; an object belongs to its first track."""
    ids, raw_ids, birth = new.ids.copy(), new.raw_ids.copy(), new.birth.copy()
    for m in range(len(made.status)):
        if not made.born[m]:
            continue
        birth[m] = state.frames
        if frame.ids is None:
            continue
        raw_ids[m] = frame.ids[made.chosen[m]]
        if raw_ids[m] not in state.ids:
            ids[m] = raw_ids[m]
    return replace(new, ids=ids, raw_ids=raw_ids, birth=birth)

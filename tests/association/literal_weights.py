"""Random weights and detections for the literal RGNNVIS, by the names that it reads.

Part of the slow reference described in `literal_graph`. Only weights that the options
use are made, so that reading another name raises KeyError.
"""

from dataclasses import dataclass

import numpy as np

from tests.association.literal_graph import Frame
from tests.association.literal_layers import Options, Weights, softmax

Layers = dict[str, tuple[int, int]]  # inputs and outputs of each linear layer


@dataclass(frozen=True)
class Widths:
    """Sizes of the association; the published ones are 128, 32, 512 and 41."""

    embedding: int = 8  # D
    bottleneck: int = 4  # of gates and residuals
    appearance: int = 6  # A
    classes: int = 5  # C, with the background


def random_weights(
    options: Options, widths: Widths, rng: np.random.Generator, *, scale: float = 1.0
) -> Weights:
    """Draws all weights of `start` and `step`; `scale` 0 makes them 0."""
    D, A = widths.embedding, widths.appearance
    layers: Layers = {"classes": (D, widths.classes)}
    norms: list[str] = []
    if options.graph == "pairs":
        layers |= _pair_layers(options, widths)
    else:
        layers |= _graph_layers(options, widths)
        norms = [f"{2 * k + 1}/norm_{x}" for k in range(options.blocks) for x in _FIVE]
    layers |= _recurrent_layers(options, D)
    if options.appearance == "lstm":
        for name in ("lstm_mean", "lstm_var"):
            layers |= {f"{name}.x": (A, 4 * A), f"{name}.h": (A, 4 * A)}
            layers[f"{name}.out"] = (A, A)
    layers |= {name: (D, 1) for name in ("kappa", "nu", "s2")}
    weights = {}
    for name, (enter, leave) in layers.items():
        weights[f"{name}/w"] = scale * rng.normal(size=(enter, leave)) / np.sqrt(enter)
        weights[f"{name}/b"] = scale * 0.3 * rng.normal(size=leave)
    for name in norms if options.layer_norm else ():
        weights[f"{name}/scale"] = 1 + scale * 0.3 * rng.normal(size=D)
        weights[f"{name}/bias"] = scale * 0.3 * rng.normal(size=D)
    weights["rho"] = scale * rng.normal(size=A)
    weights["rho0"] = scale * rng.normal(size=A)
    return weights


_FIVE = ("e", "e0", "t", "t0", "d")


def _delta(options: Options, widths: Widths) -> int:
    """Returns the width of a detection; "vertex" appends its appearance."""
    baked = widths.appearance if options.appearance == "vertex" else 0
    return widths.classes + 4 + baked


def _pair_layers(options: Options, widths: Widths) -> Layers:
    D = widths.embedding
    edge = 1 if options.appearance in ("vertex", "none") else 2
    layers = {"pair.1": (edge, D), "pair.2": (D, D), "pair.3": (D, 1)}
    return layers | {"track.1": (D + _delta(options, widths), D), "track.2": (D, D)}


def _graph_layers(options: Options, widths: Widths) -> Layers:
    D, R = widths.embedding, widths.bottleneck
    edge = 1 if options.appearance in ("vertex", "none") else 2
    layers: Layers = {"match": (D, 1), "start": (D, 1)}
    delta, edge0 = _delta(options, widths), edge - 1
    for block in range(1, 2 * options.blocks, 2):
        layers[f"{block}/f_e"] = (D + delta + edge, D)
        layers[f"{block}/f_e0"] = (D + delta + edge0, D)
        layers[f"{block}/f_t"] = layers[f"{block}/f_t0"] = (2 * D, D)
        layers[f"{block}/f_d"] = (delta + D, D)
        if options.node_updates == "mlp":
            layers |= {f"{block}/f_{name}.second": (D, D) for name in _FIVE}
        else:
            for name in ("t", "t0", "d", "d0"):
                layers[f"{block}/g_{name}.1"] = (D, R)
                layers[f"{block}/g_{name}.2"] = (R, D)
        if options.residuals:
            for name in _FIVE:
                layers |= _residual(f"{block + 1}/{name}", D, R, options.bottleneck)
        delta = edge = edge0 = D
    for name in ("1/f_e", "1/f_e0"):
        layers |= _residual(f"{name}.residual", D, R, options.bottleneck)
    return layers


def _residual(name: str, width: int, narrow: int, layers: int) -> Layers:
    sizes = [width] + [narrow] * (layers - 1) + [width]
    return {f"{name}.{k + 1}": (sizes[k], sizes[k + 1]) for k in range(layers)}


def _recurrent_layers(options: Options, D: int) -> Layers:
    layers: Layers = {}
    if options.graph == "heuristic":
        return layers
    for zero in ("", "0"):
        if options.recurrence == "simple":
            layers |= {f"simple{zero}.{name}": (D, D) for name in ("gate", "value")}
        if options.recurrence == "lstm":
            layers[f"gates{zero}"] = (D, 4 * D)
            if options.hidden_feedback:
                layers[f"gates{zero}.hidden"] = (D, 4 * D)
    return layers


def random_frame(
    widths: Widths,
    rng: np.random.Generator,
    *,
    detections: int,
    valid: int,
    canvas: tuple[int, int] = (48, 64),
) -> Frame:
    """Draws detections; the first `valid` are real, the others padding with noise."""
    height, width = canvas
    shape = (detections, 2)
    first = rng.random(shape) * [0.6 * width, 0.6 * height]
    size = (0.1 + 0.3 * rng.random(shape)) * [width, height]
    logits = 2 * rng.normal(size=(detections, widths.classes))
    frame = Frame(
        valid=np.arange(detections) < valid,
        logits=logits,
        boxes=np.concatenate([first, first + size], axis=-1),
        x=rng.normal(size=(detections, widths.appearance)),
        scores=np.array([softmax(row)[1:].max() for row in logits]),
        canvas=canvas,
        x0=rng.normal(size=widths.appearance),
        ids=rng.integers(0, 4, detections),
    )
    for array in (frame.logits, frame.boxes, frame.x, frame.scores):
        array[valid:] = 1e3
    return frame

"""Switches and layers of the literal RGNNVIS: one vector at a time, in float64.

Part of the slow reference described in `literal_graph`. A linear layer NAME is the pair
of weights "NAME/w" (in, out) and "NAME/b" (out); widths follow from the weights.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Options:
    """All options of the association; the defaults follow the paper.

    Brissman et al., "Recurrent Graph Neural Networks for Video Instance Segmentation",
    IJCV 2022, Table 3 and Table 8, and the differences of their released code.
    """

    # The network; "pairs" models each pair alone, "heuristic" replaces the network's
    # decisions by MaskTrack R-CNN's rule.
    graph: Literal["graph", "pairs", "heuristic"] = "graph"
    node_updates: Literal["gated", "mlp"] = "gated"
    blocks: int = 2  # interaction blocks
    residuals: bool = True  # a residual block after each interaction block
    bottleneck: int = 3  # linear layers of a residual of the graph
    # The recurrence; `hidden_feedback` applies to "lstm" only.
    recurrence: Literal["lstm", "simple", "none"] = "lstm"
    hidden_feedback: bool = False
    # Model of a track's appearance.
    appearance: Literal["gaussian", "constant_variance", "lstm", "vertex", "none"] = (
        "gaussian"
    )
    variance_rule: Literal["released", "paper", "nix2"] = "paper"
    first_appearance: Literal["detection", "update"] = "detection"
    empty_appearance: Literal["described", "mean"] = "described"
    inactive_boxes: Literal["kept", "zero"] = "kept"
    # RGNNVIS++.
    layer_norm: bool = False
    positions: bool = False
    # Logits; a match needs at least, a start more than, its threshold. The softplus
    # values that the paper gives for testing, read as probabilities: about .3133.
    match_threshold: float = float(np.log(0.3133) - np.log1p(-0.3133))
    start_threshold: float = float(np.log(0.3133) - np.log1p(-0.3133))
    # Candidates for free slots, by index of the detection or by their start logit.
    start_order: Literal["confidence", "logit"] = "confidence"
    background: float = 0.0  # logit of the background in the map of the tracks
    # Class scores of a track.
    scoring: Literal["learned", "majority", "average", "running_average"] = "learned"
    # Confidence, overlap and class in the heuristic scores: at test time only.
    heuristic_terms: bool = True


PAPER = Options()
RELEASED = replace(
    PAPER,
    bottleneck=2,
    hidden_feedback=True,
    variance_rule="released",
    first_appearance="update",
    empty_appearance="mean",
    inactive_boxes="zero",
    match_threshold=-2.0,
    start_threshold=-2.0,
    background=10.0,
)
PLUS = replace(PAPER, layer_norm=True, positions=True)


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """Returns x w + b."""
    return x @ weights[f"{name}/w"] + weights[f"{name}/b"]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def softmax(x: np.ndarray) -> np.ndarray:
    """Returns the softmax of a vector."""
    raised = np.exp(x - x.max())
    return raised / raised.sum()


def residual(weights: Weights, name: str, x: np.ndarray, *, layers: int) -> np.ndarray:
    """Returns ReLU(x + F(x)); F: linear layers NAME.1, NAME.2, .. with ReLU between."""
    y = x
    for layer in range(1, layers + 1):
        y = linear(weights, f"{name}.{layer}", y)
        if layer < layers:
            y = relu(y)
    return relu(x + y)


def layer_norm(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """Normalises one vector: biased variance plus 1e-5, then scale and bias."""
    normal = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return normal * weights[f"{name}/scale"] + weights[f"{name}/bias"]


def lstm(gates: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns output and new cell from the forget, input, output and cell gates."""
    forget, enter, leave, value = np.split(gates, 4)
    cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(value)
    return sigmoid(leave) * np.tanh(cell), cell

"""Converts weights of the literal RGNNVIS to our parameters.

The literal form uses the paper's names: blocks count from 1, and odd ones are
interactions.
"""

import re

import numpy as np

from tests.association.literal_layers import Options, Weights
from vis_jax.association.track_graph import Settings
from vis_jax.params import unflatten

_UPDATES = {
    "e": "edge",
    "e0": "empty_edge",
    "t": "track",
    "t0": "empty",
    "d": "detection",
}
_GATES = {"t": "track", "t0": "empty", "d": "detection", "d0": "detection_empty"}
_PARTS = {
    "e": "edges",
    "e0": "empty_edges",
    "t": "tracks",
    "t0": "empty",
    "d": "detections",
}
_RECURRENCES = {"": "recurrence", "0": "empty_recurrence"}
_LSTMS = {"mean": 0, "var": 1}
# Patterns of layer names, and their paths in our parameters.
_PLACES = (
    (r"classes", lambda m: "classify"),
    (r"(match|start)", lambda m: f"say/{m[1]}"),
    (r"pair\.(\d)", lambda m: f"say/match/layers_{int(m[1]) - 1}"),
    (r"track\.(\d)", lambda m: f"say/track/layers_{int(m[1]) - 1}"),
    (r"(\d)/f_(\w+)", lambda m: _interaction(m[1], _UPDATES[m[2]])),
    (r"(\d)/f_(\w+)\.second", lambda m: _interaction(m[1], f"{_UPDATES[m[2]]}_second")),
    (
        r"(\d)/f_(\w+)\.residual\.(\d)",
        lambda m: (
            _interaction(m[1], f"{_UPDATES[m[2]]}_residual/layers/layers_")
            + str(int(m[3]) - 1)
        ),
    ),
    (
        r"(\d)/g_(\w+)\.(\d)",
        lambda m: _interaction(m[1], f"{_GATES[m[2]]}_gate/layers_{int(m[3]) - 1}"),
    ),
    (r"(\d)/norm_(\w+)", lambda m: _interaction(m[1], f"{_UPDATES[m[2]]}_norm")),
    (
        r"(\d)/([etd]0?)\.(\d)",
        lambda m: (
            f"say/network/residuals{int(m[1]) // 2 - 1}/{_PARTS[m[2]]}/layers/layers_"
            + str(int(m[3]) - 1)
        ),
    ),
    (r"gates(0?)", lambda m: f"{_RECURRENCES[m[1]]}/gates"),
    (r"gates(0?)\.hidden", lambda m: f"{_RECURRENCES[m[1]]}/feedback"),
    (r"simple(0?)\.(\w+)", lambda m: f"{_RECURRENCES[m[1]]}/{m[2]}"),
    (r"kappa", lambda m: "model/mean_rate"),
    (r"nu", lambda m: "model/var_rate"),
    (r"s2", lambda m: "model/spread"),
    (r"lstm_(\w+)\.x", lambda m: f"model/memories_{_LSTMS[m[1]]}/gates"),
    (r"lstm_(\w+)\.h", lambda m: f"model/memories_{_LSTMS[m[1]]}/feedback"),
    (r"lstm_(\w+)\.out", lambda m: f"model/outputs_{_LSTMS[m[1]]}"),
    (r"psi(\d)", lambda m: f"projections_res{m[1]}"),
    (r"phi\.(\d)", lambda m: f"residual/layers/layers_{int(m[1]) - 1}"),
    (r"masks\.(\w+)", lambda m: m[1]),
)
_LEAVES = {"w": "kernel", "b": "bias", "scale": "scale", "bias": "bias"}
_STARTS = {"rho": "model/start", "rho0": "model/empty_start"}


def _interaction(block: str, layer: str) -> str:
    return f"say/network/interaction{int(block) // 2}/{layer}"


def place_of(name: str) -> str:
    """Returns the path of a literal weight among our parameters."""
    if name in _STARTS:
        return _STARTS[name]
    layer, _, leaf = name.rpartition("/")
    found = [place(m) for p, place in _PLACES if (m := re.fullmatch(p, layer))]
    if len(found) != 1:
        raise KeyError(f"{name}: expected one place, got {found}")
    return f"{found[0]}/{_LEAVES[leaf]}"


def variables_of(weights: Weights, expected: dict) -> dict:
    """Returns our variables, each taken from the literal weights.

    Args:
      weights: of the literal form; those without a counterpart are ignored.
      expected: shapes by path, collections first.
    """
    values = {place_of(name): value for name, value in weights.items()}
    found = {}
    for path, shape in expected.items():
        value = np.asarray(values[path.partition("/")[2]], np.float32)
        assert value.shape == shape.shape, path
        found[path] = value
    return unflatten(found)


def settings_of(options: Options, tracks: int, dim: int, narrow: int) -> Settings:
    """Returns our settings for the literal options; start and mean are `rho`'s."""
    return Settings(
        tracks=tracks,
        dim=dim,
        narrow=narrow,
        blocks=options.blocks,
        residuals=options.residuals,
        residual_layers=options.bottleneck,
        gated=options.node_updates == "gated",
        layer_norm=options.layer_norm,
        decide=options.graph,
        recurrence="none" if options.graph == "heuristic" else options.recurrence,
        feedback=options.hidden_feedback,
        looks=options.appearance,
        variance=(
            "normal_inverse_chi2"
            if options.variance_rule == "nix2"
            else options.variance_rule
        ),
        fixed_variance=options.first_appearance == "update",
        looks_from_zero=options.first_appearance == "update",
        keep_boxes=options.inactive_boxes == "kept",
    )

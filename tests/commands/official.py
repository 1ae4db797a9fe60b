"""Makes random weights with Mask2Former's names and the shapes of our model."""

import json
import math
import pickle
import re
from pathlib import Path

import numpy as np

from tests.golden.golden_weights import make_param
from vis_jax.converters.load import KINDS
from vis_jax.converters.mask2former import CLIP_DECODER

NAMES = Path(__file__).parents[1] / "golden" / "videomaskformer_r50.json"


def official_weights(shapes: dict, *, classes: int) -> dict[str, np.ndarray]:
    """Draws tensors for all parts of a thin Mask2Former-VIS with a ResNet.

    Args:
      shapes: of its parameters, by path.
      classes: outputs of the class head; may differ from the model's, for a new head.
    """
    rules = [*KINDS["mask2former"].rules, *CLIP_DECODER]
    weights = {"criterion.empty_weight": np.ones(classes, np.float32)}
    for entry in json.loads(NAMES.read_text())["parameters"]["model"]:
        path = _target(entry["name"], rules)
        if path in shapes:
            shape = _official_shape(entry["name"], len(entry["shape"]), shapes[path])
            if ".class_embed." in entry["name"]:
                shape = (classes, *shape[1:])
            weights[entry["name"]] = make_param(entry["name"], shape)
    return weights


def write_pickle(path: Path, weights: dict[str, np.ndarray]) -> Path:
    """Writes weights like detectron2's model zoo."""
    path.write_bytes(pickle.dumps({"model": weights, "__author__": "test"}))
    return path


def _target(name: str, rules) -> str | None:
    """Returns the first path that a tensor maps to."""
    for rule in rules:
        match = re.fullmatch(rule.source, name)
        if match:
            return match.expand(rule.targets[0][0]) if rule.targets else None
    raise AssertionError(f"no rule for {name}")


def _official_shape(name: str, axes: int, ours: tuple) -> tuple:
    """Returns the PyTorch shape of a tensor, given ours and its number of axes."""
    if "in_proj" in name:  # query, key and value in one
        ours = (3 * math.prod(ours[1:] if axes == 2 else ours), *ours[:1])
        return ours[:axes]
    if axes == 1:
        return (math.prod(ours),)
    if name.split(".")[-2] in ("query_feat", "query_embed", "level_embed"):
        return ours
    if name.endswith("level_embed"):
        return ours
    if axes == 4 and len(ours) == 4:
        return (ours[3], ours[2], *ours[:2])
    linear = (ours[-1], math.prod(ours[:-1]))
    return linear + (1,) * (axes - 2)

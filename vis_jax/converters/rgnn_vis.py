"""RGNNVIS weights, with the names of the code released in 2021.

Backbone and detector use the names of torchvision and YOLACT behind a prefix. The
graph's blocks are numbered consecutively: interactions are 0 and 2, residuals 1 and 3.
"""

import numpy as np

from vis_jax.converters import resnet, yolact
from vis_jax.converters.rules import NameRule, Rename
from vis_jax.converters.swin import linear_rule
from vis_jax.converters.transforms import kernel, same

# Parts that a plain detector lacks.
ASSOCIATION = r"(params|constants)/(appearance|graph|masks)/.*"

NAMES = [
    *[
        Rename(rf"backbone\.{rename.source}", rename.target)
        for rename in resnet.TORCHVISION
    ],
    Rename(
        r"detector\.((?:fpn|proto_net|prediction_layers|semantic_seg_conv)\..*)", r"\1"
    ),
]

_MATCHER = "track_detection_matcher"
_TRACKS = "track_descriptor"

# Their names to ours, for an interaction and a residual block.
_UPDATES = {
    "trkdet": "edge",
    "bkgdet": "empty_edge",
    "trk": "track",
    "bkg": "empty",
    "det": "detection",
}
_GATES = {
    r"trk\.trkdet": "track_gate",
    r"bkg\.bkgdet": "empty_gate",
    r"det\.trkdet": "detection_gate",
    r"det\.bkgdet": "detection_empty_gate",
}
_PARTS = {
    "trkdet": "edges",
    "bkgdet": "empty_edges",
    "trk": "tracks",
    "bkg": "empty",
    "det": "detections",
}


def _block(index: int) -> dict[str, str]:
    """Returns the layer names of an interaction and its residuals."""
    old = rf"{_MATCHER}\.layers\.{2 * index}"
    new = f"graph/say/network/interaction{index}"
    after = rf"{_MATCHER}\.layers\.{2 * index + 1}"
    residuals = f"graph/say/network/residuals{index}"
    found = {rf"{old}\.{a}\.out\.0": f"{new}/{b}" for a, b in _UPDATES.items()}
    for place, layer in ((0, "layers_0"), (2, "layers_1")):
        if index == 0:
            found |= {
                rf"{old}\.{a}\.out\.2\.layers\.{place}": (
                    f"{new}/{_UPDATES[a]}_residual/layers/{layer}"
                )
                for a in ("trkdet", "bkgdet")
            }
        found |= {
            rf"{old}\.{a}_sigmoid\.{place}": f"{new}/{b}/{layer}"
            for a, b in _GATES.items()
        }
        found |= {
            rf"{after}\.{a}\.out\.layers\.{place}": f"{residuals}/{b}/layers/{layer}"
            for a, b in _PARTS.items()
        }
    return found


_LAYERS = {
    **{
        rf"detection_descriptor_extractor\.appearance_layers\.layers\.{place}": (
            f"appearance/residual/layers/layers_{number}"
        )
        for number, place in enumerate((0, 2, 4))
    },
    **_block(0),
    **_block(1),
    rf"{_MATCHER}\.score_layers\.trkdet": "graph/say/match",
    rf"{_MATCHER}\.score_layers\.bkgdet": "graph/say/start",
    **{
        rf"{_TRACKS}\.memory_layers\.{old}\.{part}": f"graph/{new}/{layer}"
        for old, new in (("tracks", "recurrence"), ("background", "empty_recurrence"))
        for part, layer in (("x", "gates"), ("prev_out", "feedback"))
    },
    rf"{_TRACKS}\.out_layers\.mean_eta": "graph/model/mean_rate",
    rf"{_TRACKS}\.out_layers\.var_eta": "graph/model/var_rate",
    rf"{_TRACKS}\.out_layers\.var_new": "graph/model/spread",
    r"track_module\.embedding_to_seg_layers\.0": "masks/embedding",
    r"track_module\.seg_layers\.0": "masks/conv1",
    r"track_module\.seg_layers\.2": "masks/conv2",
}

# Layers whose shapes depend on the classes.
_CLASSES = {
    rf"{_TRACKS}\.out_layers\.lbscores": "graph/classify",
    rf"{_MATCHER}\.layers\.0\.trkdet\.out\.0": "graph/say/network/interaction0/edge",
    rf"{_MATCHER}\.layers\.0\.bkgdet\.out\.0": (
        "graph/say/network/interaction0/empty_edge"
    ),
    rf"{_MATCHER}\.layers\.0\.det\.out\.0": (
        "graph/say/network/interaction0/detection"
    ),
}


def _pointwise_back(array: np.ndarray, outputs: int) -> np.ndarray:
    """Reshapes [in, out] to [out, in, 1, 1]."""
    del outputs
    return array.T[..., None, None]


RULES = [
    *yolact.RULES,
    *[
        NameRule(
            rf"appnet\.feat_nets\.bb_feats_{old}\.0\.{leaf}",
            ((f"params/appearance/projections_{new}/{ours}", how),),
        )
        for old, new in (("s8", "res4"), ("s16", "res5"))
        # 1x1 convolutions there, linear layers here.
        for leaf, ours, how in (
            ("weight", "kernel", kernel._replace(back=_pointwise_back)),
            ("bias", "bias", same),
        )
    ],
    *[
        rule
        for source, target in _LAYERS.items()
        if source not in _CLASSES
        for rule in linear_rule(source, target)
    ],
    *[
        NameRule(rf"{source}\.{old}", ((f"params/{target}/{new}", how),), fresh=True)
        for source, target in _CLASSES.items()
        for old, new, how in (("weight", "kernel", kernel), ("bias", "bias", same))
    ],
    NameRule(rf"{_TRACKS}\.init_var", (("constants/graph/model/start", same),)),
    NameRule(
        rf"{_TRACKS}\.init_var_background",
        (("constants/graph/model/empty_start", same),),
    ),
]

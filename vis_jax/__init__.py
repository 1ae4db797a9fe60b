"""Video instance segmentation in JAX: detect, segment and track every object.

    import vis_jax

    model = vis_jax.load("runs/mask_track")
    video = model.track("clip.mp4")
    video.save("out")
    vis_jax.score("instances.json", "results.json")

Modules load on first use: neither this import nor `score` needs JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vis_jax.api import Model as Model
    from vis_jax.api import train as train
    from vis_jax.loading import load as load
    from vis_jax.results.frame import FrameResult as FrameResult
    from vis_jax.results.video import VideoResult as VideoResult
    from vis_jax.scoring import score as score

__version__ = "0.1.0"

# Where each name is defined (PEP 562).
_HOMES = {
    "FrameResult": "vis_jax.results.frame",
    "Model": "vis_jax.api",
    "VideoResult": "vis_jax.results.video",
    "load": "vis_jax.loading",
    "score": "vis_jax.scoring",
    "train": "vis_jax.api",
}

__all__ = [
    "FrameResult",
    "Model",
    "VideoResult",
    "__version__",
    "load",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

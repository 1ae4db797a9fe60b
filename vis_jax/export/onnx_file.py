"""Writes the step of a system in ONNX, and runs it with ONNX Runtime.

Needs the packages of the extra `onnx`. A file has the weights inside. The state goes in
under names that begin with `state/`, and comes out under `next_state/`; clip and
predictions have the names of their fields.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vis_jax.export.manifest import ClipShape, file_name
from vis_jax.export.stablehlo import Step
from vis_jax.structures import Clip, Predictions

STATE, NEXT = "state/", "next_state/"
ONNX, ARRAYS = ".onnx", ".safetensors"  # of a step, and of the state before it
_OPSET = 21  # of the default domain; ONNX Runtime reads it from 1.20 on


def write_onnx(path: Path, step: Step, variables: Mapping[str, Any]) -> None:
    """Writes a step with its weights.

    Args:
      path: of the file.
      step: see `stablehlo.named_step`.
      variables: arrays by name.

    Raises:
      ValueError: an operation has no counterpart in ONNX; names it.
      OSError: the file cannot be written.
    """
    from jax2onnx import to_onnx

    def call(state: dict, clip: dict) -> tuple[dict, dict]:
        return step.call(variables, state, clip)

    # jax2onnx changes functions of JAX while it traces, which scans of Flax do not
    # bear: it gets what is traced already.
    closed, (after, found) = jax.make_jaxpr(call, return_shape=True)(
        step.state, step.clip
    )
    flat = jax.extend.core.jaxpr_as_fun(closed)
    try:
        to_onnx(
            lambda *arrays: tuple(flat(*arrays)),
            inputs=jax.tree.leaves((step.state, step.clip)),
            input_names=[f"{STATE}{x}" for x in sorted(step.state)] + sorted(step.clip),
            output_names=[f"{NEXT}{x}" for x in sorted(after)] + sorted(found),
            opset=_OPSET,
            return_mode="file",
            output_path=path,
        )
    except OSError:
        raise
    except Exception as error:  # jax2onnx raises many kinds
        line = " ".join(str(error).split())
        raise ValueError(
            f"an operation has no counterpart in ONNX: {line:.300}"
        ) from error


class OnnxSystem:
    """`start` and `step` of a system that was written in ONNX.

    Args:
      folder: of the files.
      states: the state before the first clip by the shape of a clip, arrays by name.

    Raises:
      ValueError: ONNX Runtime cannot run a file.
    """

    def __init__(
        self, folder: Path, states: Mapping[ClipShape, Mapping[str, np.ndarray]]
    ):
        import onnxruntime

        self._states, self._sessions = states, {}
        for shape in states:
            path = folder / file_name("step", shape, ONNX)
            try:
                self._sessions[shape] = onnxruntime.InferenceSession(path)
            except Exception as error:  # ONNX Runtime has its own kinds
                line = " ".join(str(error).split())
                raise ValueError(f"{path.name}: ONNX Runtime: {line:.300}") from error

    def start(self, clip: Clip, /) -> Mapping[str, np.ndarray]:
        """The state before the first clip, by name."""
        return self._states[_shape(clip)]

    def step(
        self, state: Mapping[str, np.ndarray], clip: Clip, /
    ) -> tuple[dict[str, np.ndarray], Predictions]:
        """The state for the next clip, and what is known now."""
        session = self._sessions[_shape(clip)]
        feeds = {f"{STATE}{name}": value for name, value in state.items()}
        feeds |= {name: np.asarray(x) for name, x in clip._asdict().items()}
        # What does not change the result, such as `last`, is no input.
        known = {one.name for one in session.get_inputs()}
        names = [one.name for one in session.get_outputs()]
        values = session.run(names, {n: x for n, x in feeds.items() if n in known})
        found = dict(zip(names, values, strict=True))
        after = {
            name.removeprefix(NEXT): found.pop(name)
            for name in names
            if name.startswith(NEXT)
        }
        return after, Predictions(**found)


def _shape(clip: Clip) -> ClipShape:
    return ClipShape(*clip.images.shape[:3])

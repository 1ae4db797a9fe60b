"""Writes the step of a system as ONNX, and runs it with ONNX Runtime.

Needs the packages of the extra `onnx`. A file contains the weights. Inputs of the state
are named `state/..`, its outputs `next_state/..`; clip and predictions have the names
of their fields.
"""

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from vis_jax.export.manifest import STEP, ClipShape, file_name
from vis_jax.export.onnx_forms import plain
from vis_jax.export.stablehlo import NamedStep
from vis_jax.formats.disk import naming
from vis_jax.structures import Clip, Predictions

STATE, NEXT = "state/", "next_state/"
ONNX, ARRAYS = ".onnx", ".safetensors"  # suffixes of a step and of its initial state
_OPSET = 21  # default domain; needs ONNX Runtime 1.20 or later


def write_onnx(path: Path, step: NamedStep, variables: Mapping[str, Any]) -> None:
    """Writes a step with its weights.

    Args:
      path: path of the file.
      step: see `stablehlo.named_step`.
      variables: arrays by name.

    Raises:
      ValueError: jax2onnx cannot write the step, for example an operation without
        a counterpart in ONNX; names the JAX operation and the reason.
      OSError: the file cannot be written.
    """
    from jax2onnx import to_onnx

    constants = jax.tree.map(jnp.asarray, dict(variables))

    def call(state: dict, clip: dict) -> tuple[dict, dict]:
        return step.call(constants, state, clip)

    # Trace first: jax2onnx patches JAX functions while it traces, which breaks scans
    # of Flax.
    closed, (after, found) = jax.make_jaxpr(call, return_shape=True)(
        step.state, step.clip
    )
    flat = plain(closed)
    inputs = [*_keys(STATE, step.state), *sorted(step.clip)]
    outputs = [*_keys(NEXT, after), *sorted(found)]
    try:
        model = to_onnx(
            lambda *arrays: tuple(flat(*arrays)),
            inputs=jax.tree.leaves((step.state, step.clip)),
            opset=_OPSET,
        )
        _spell_out_choices(model)
        _rename(model.graph.input, inputs, model, outputs=False)
        _rename(model.graph.output, outputs, model, outputs=True)
    except MemoryError:
        raise
    except Exception as error:  # jax2onnx raises many types
        raise ValueError(
            f"jax2onnx cannot write {_operation_of(error)}: {type(error).__name__}:"
            f" {_one_line(error)}"
        ) from error
    with naming(path):
        path.write_bytes(model.SerializeToString())


def _operation_of(error: Exception) -> str:
    """Describes the operation at which jax2onnx failed, for an error message."""
    name = "it"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(eqn := frame.f_locals.get("eqn"), JaxprEqn):
            name = f"the operation {eqn.primitive.name!r}"
    return name


def _one_line(error: Exception) -> str:
    return f"{' '.join(str(error).split()):.300}"


def _keys(prefix: str, arrays: Mapping[str, Any]) -> list[str]:
    """Returns prefixed names in the order in which JAX flattens a dict."""
    return [f"{prefix}{name}" for name in sorted(arrays)]


def _spell_out_choices(model: Any) -> None:
    """Replaces boolean `Where`, which ONNX Runtime lacks, by and, or, not."""
    import onnx

    types: dict[str, int] = {}
    for graph in _graphs(onnx.shape_inference.infer_shapes(model).graph):
        for value in (*graph.value_info, *graph.input, *graph.output):
            types[value.name] = value.type.tensor_type.elem_type
        types |= {one.name: one.data_type for one in graph.initializer}
    for graph in _graphs(model.graph):
        nodes = []
        for node in graph.node:
            kinds = [types.get(name) for name in node.input[1:]]
            if node.op_type != "Where" or onnx.TensorProto.BOOL not in kinds:
                nodes.append(node)
                continue
            (condition, yes, no), out = node.input, node.output[0]
            steps = [
                ("And", [condition, yes], f"{out}/yes"),
                ("Not", [condition], f"{out}/not"),
                ("And", [f"{out}/not", no], f"{out}/no"),
                ("Or", [f"{out}/yes", f"{out}/no"], out),
            ]
            nodes += [onnx.helper.make_node(k, i, [name]) for k, i, name in steps]
        del graph.node[:]
        graph.node.extend(nodes)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yields a graph and the graphs nested in its nodes, such as loop bodies."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _rename(values: Any, names: list[str], model: Any, *, outputs: bool) -> None:
    """Renames inputs or outputs of a graph by adding identity nodes.

    An output that is an unchanged input also gets its own name.
    """
    from onnx import helper

    if len(values) != len(names):
        raise ValueError(f"expected {len(names)} arrays in ONNX, got {len(values)}")
    nodes = list(model.graph.node)
    for value, name in zip(values, names, strict=True):
        ends = (value.name, name) if outputs else (name, value.name)
        copy = helper.make_node("Identity", [ends[0]], [ends[1]])
        nodes = [*nodes, copy] if outputs else [copy, *nodes]
        value.name = name
    del model.graph.node[:]
    model.graph.node.extend(nodes)


class OnnxSystem:
    """`start` and `step` of a system that was exported to ONNX.

    Args:
      folder: folder of the files.
      states: initial state for each clip shape, arrays by name.

    Raises:
      ValueError: ONNX Runtime cannot run a file.
    """

    def __init__(
        self, folder: Path, states: Mapping[ClipShape, Mapping[str, np.ndarray]]
    ) -> None:
        import onnxruntime

        self._states, self._sessions = states, {}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only; it warns of each unused constant
        for shape in states:
            path = folder / file_name(STEP, shape, ONNX)
            try:
                self._sessions[shape] = onnxruntime.InferenceSession(path, options)
            except Exception as error:  # ONNX Runtime raises its own types
                raise _runtime_error(shape, error) from error

    def start(self, clip: Clip, /) -> Mapping[str, np.ndarray]:
        """Returns the state before the first clip, by name."""
        return self._states[_shape(clip)]

    def step(
        self, state: Mapping[str, np.ndarray], clip: Clip, /
    ) -> tuple[dict[str, np.ndarray], Predictions]:
        """Returns the state for the next clip, and the predictions so far.

        Raises:
          ValueError: ONNX Runtime cannot run an operation; names it.
        """
        session = self._sessions[shape := _shape(clip)]
        feeds = {f"{STATE}{name}": value for name, value in state.items()}
        feeds |= {name: np.asarray(x) for name, x in clip._asdict().items()}
        names = [one.name for one in session.get_outputs()]
        try:
            values = session.run(names, feeds)
        except MemoryError:
            raise
        except Exception as error:
            raise _runtime_error(shape, error) from error
        found = dict(zip(names, values, strict=True))
        after = {
            name.removeprefix(NEXT): found.pop(name)
            for name in names
            if name.startswith(NEXT)
        }
        return after, Predictions(**found)


def _runtime_error(shape: ClipShape, error: Exception) -> ValueError:
    """Returns an error with ONNX Runtime's message, which names the node."""
    return ValueError(
        f"{file_name(STEP, shape, ONNX)}: ONNX Runtime: {_one_line(error)}"
    )


def _shape(clip: Clip) -> ClipShape:
    return ClipShape(*clip.images.shape[:3])

"""A step in ONNX is that of JAX; what stops jax2onnx is one line."""

import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.export.manifest import ClipShape
from vis_jax.export.onnx_file import NEXT, STATE, OnnxSystem, write_onnx
from vis_jax.export.stablehlo import NamedStep, shapes_like
from vis_jax.structures import Clip


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [
        (RuntimeError("no\n plugin"), ValueError, "RuntimeError: no plugin"),
        (MemoryError("full"), MemoryError, "^full$"),
    ],
)
def test_an_error_of_jax2onnx_keeps_its_kind(
    error, kind, expected, tmp_path, monkeypatch
):
    def to_onnx(*_, **__):
        raise error

    monkeypatch.setitem(sys.modules, "jax2onnx", SimpleNamespace(to_onnx=to_onnx))
    one = {"n": jax.ShapeDtypeStruct((), jnp.float32)}
    step = NamedStep(lambda variables, state, clip: (state, clip), {}, one, one)
    with pytest.raises(kind, match=expected):
        write_onnx(tmp_path / "x.onnx", step, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [
        (RuntimeError("Non-zero status\n of Gather"), ValueError, "status of Gather$"),
        (MemoryError("full"), MemoryError, "^full$"),
    ],
)
def test_what_stops_onnx_runtime_is_one_line(error, kind, expected, monkeypatch):
    class Session:
        def __init__(self, *_):
            pass

        def get_outputs(self):
            return []

        def run(self, *_):
            raise error

    runtime = SimpleNamespace(InferenceSession=Session, SessionOptions=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    shape = ClipShape(1, 32, 32)
    system = OnnxSystem(Path(), {shape: {}})
    clip = Clip(*(np.zeros(x.shape, x.dtype) for x in shapes_like(shape)))
    with pytest.raises(kind, match=expected) as caught:
        system.step({}, clip)
    if kind is ValueError:
        assert str(caught.value).startswith("step_1x32x32.onnx: ONNX Runtime: Non-zero")


def test_the_operation_that_jax2onnx_lacks_is_named(tmp_path):
    pytest.importorskip("jax2onnx")

    def call(variables, state, clip):
        return state, {"n": jnp.linalg.eigh(clip["n"])[0]}

    one = {"n": jax.ShapeDtypeStruct((3, 3), jnp.float32)}
    with pytest.raises(ValueError, match="cannot write the operation 'eigh': Not"):
        write_onnx(tmp_path / "x.onnx", NamedStep(call, {}, one, one), {})
    assert not list(tmp_path.iterdir())


def test_loops_with_indices_are_written(tmp_path):
    """As a tracker has them: rows by index in a scan, and loops that end one by one.

    Between two reshapes the larger of two arrays, as in a scatter.
    """
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")

    def call(variables, state, clip):
        def follow(memory, row):
            return memory + memory[row % 3][None] * variables["w"], memory[row]

        memory, rows = jax.lax.scan(follow, state["memory"], clip["rows"])
        flat = jnp.maximum(memory.reshape(-1), jnp.arange(12, dtype=jnp.float32) / 9)

        def until(x):
            return jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: 2 * y + 1, x)

        found = {"read": rows, "ended": jax.vmap(until)(abs(memory))}
        return {"memory": memory}, found | {"larger": flat.reshape(3, 4)}

    rng = np.random.default_rng(0)
    variables = {"w": rng.normal(size=(1, 4)).astype(np.float32)}
    state = {"memory": rng.normal(size=(3, 4)).astype(np.float32)}
    clip = {"rows": np.array([2, 0], np.int32)}
    step = NamedStep(
        call, variables, *(jax.eval_shape(lambda x: x, x) for x in (state, clip))
    )
    write_onnx(tmp_path / "x.onnx", step, variables)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    names = [one.name for one in session.get_outputs()]
    given = {f"{STATE}memory": state["memory"], **clip}
    found = dict(zip(names, session.run(names, given), strict=True))
    after, expected = jax.jit(call)(variables, state, clip)
    for name, value in {f"{NEXT}memory": after["memory"], **expected}.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)

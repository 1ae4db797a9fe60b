"""A step in ONNX is that of JAX; what stops jax2onnx is one line."""

import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.export.onnx_file import NEXT, STATE, write_onnx
from vis_jax.export.stablehlo import Step


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
    step = Step(lambda variables, state, clip: (state, clip), {}, one, one)
    with pytest.raises(kind, match=expected):
        write_onnx(tmp_path / "x.onnx", step, {})
    assert not list(tmp_path.iterdir())


def test_loops_with_indices_are_written(tmp_path):
    """As a tracker has them: rows by index in a scan, and loops that end one by one."""
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")

    def call(variables, state, clip):
        def follow(memory, row):
            return memory + memory[row % 3][None] * variables["w"], memory[row]

        memory, rows = jax.lax.scan(follow, state["memory"], clip["rows"])

        def until(x):
            return jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: 2 * y + 1, x)

        return {"memory": memory}, {"read": rows, "ended": jax.vmap(until)(abs(memory))}

    rng = np.random.default_rng(0)
    variables = {"w": rng.normal(size=(1, 4)).astype(np.float32)}
    state = {"memory": rng.normal(size=(3, 4)).astype(np.float32)}
    clip = {"rows": np.array([2, 0], np.int32)}
    step = Step(
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

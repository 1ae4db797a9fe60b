"""What stops jax2onnx is one line."""

import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from vis_jax.export.onnx_file import write_onnx
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

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.backbones.fpn import FPN, _double


def backbone_shapes(height, width, dtype=jnp.float32):
    return {
        f"res{stage}": jax.ShapeDtypeStruct(
            (2, height // 2**stage, width // 2**stage, 2**stage), dtype
        )
        for stage in (2, 3, 4, 5)
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_strides_and_channels(dtype):
    features = backbone_shapes(96, 160)
    model = FPN(8, dtype)
    levels, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), features)
    assert {name: x.shape for name, x in levels.items()} == {
        "p2": (2, 24, 40, 8),
        "p3": (2, 12, 20, 8),
        "p4": (2, 6, 10, 8),
        "p5": (2, 3, 5, 8),
        "p6": (2, 2, 3, 8),
    }
    assert all(x.dtype == dtype for x in levels.values())


def test_doubling_repeats_every_cell():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    np.testing.assert_array_equal(_double(x)[0, ..., 0], expected)

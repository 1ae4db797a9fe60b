import numpy as np

from tests.compiled import compiled
from vis_jax.ops.masks import mask_iou


def test_is_the_definition_and_zero_for_empty_masks():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 4, 5)) < 0.5, rng.random((2, 4, 5)) < 0.5
    a[0] = b[0] = False
    ours = compiled(mask_iou)(a, b)
    for i, j in np.ndindex(3, 2):
        expected = (a[i] & b[j]).sum() / max((a[i] | b[j]).sum(), 1)
        np.testing.assert_allclose(ours[i, j], expected, rtol=1e-6)

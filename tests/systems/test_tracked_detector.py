import numpy as np

from tests.compiled import compiled
from vis_jax.structures import Detections
from vis_jax.systems.tracked_detector import on_canvas


def test_padding_of_detections_with_masks_over_the_canvas_has_zeros():
    valid = np.array([[True, False]])

    def ones(*shape):
        return np.ones((1, 2, *shape), np.float32)

    found = Detections(
        boxes=ones(4),
        scores=valid.astype(np.float32),
        labels=np.array([[0, 3]], np.int32),
        valid=valid,
        embeds=ones(5),
        looks=ones(6),
        mask_logits=ones(2, 3),
    )
    on = compiled(on_canvas, static_argnames="canvas")(found, canvas=(8, 12))
    for name in ("boxes", "embeds", "looks", "mask_logits"):
        value = getattr(on, name)
        np.testing.assert_array_equal(value[0, 0], getattr(found, name)[0, 0])
        assert not value[0, 1].any(), name
    np.testing.assert_array_equal(on.mask_boxes, [[[0, 0, 12, 8], [0, 0, 0, 0]]])

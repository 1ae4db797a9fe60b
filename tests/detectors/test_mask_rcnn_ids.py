import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.detectors.box_head import BoxOutput
from vis_jax.detectors.mask_rcnn_ids import IdBoxOutput, IdRegionRule, find_boxes
from vis_jax.ops.box_coder import UNIT, BoxCoder

RULE = IdRegionRule(0.1, 0.1, 0.5, 3, "code")
CODER = BoxCoder(UNIT, (-4.0, 4.0))

find = compiled(find_boxes, static_argnames=("coder", "rule"))


def scene(objects, regions):
    """Regions of (class, identity) probabilities of the second of two."""
    classes, ids = [], []
    for a, b in objects:
        classes.append([0.01, a, 0.99 - a])
        ids.append([0.01, b, 0.99 - b])
    count = len(objects)
    deltas = np.zeros((count, 2, 4), np.float32)
    deltas[:, 0] = 5.0  # the box of another class, far off
    out = BoxOutput(np.log(np.float32(classes)), deltas)
    return IdBoxOutput(out, np.log(np.float32(ids))), np.float32(regions)


# The first two overlap.
REGIONS = [[0, 0, 20, 20], [0, 0, 20, 19], [30, 30, 40, 40], [50, 0, 60, 10]]
OBJECTS = [(0.9, 0.2), (0.2, 0.9), (0.5, 0.5), (0.09, 0.9)]


@pytest.mark.parametrize(("first", "kept"), [(True, [0, 2]), (False, [1, 2])])
def test_class_and_identity_change_places_after_the_first_frame(first, kept):
    out, regions = scene(OBJECTS, REGIONS)
    found = find(
        out, regions, valid=np.ones(4, bool), size=np.int32([64, 64]),
        first=np.bool_(first), coder=CODER, rule=RULE,
    )  # fmt: skip
    assert found.valid.tolist() == [True, True, False]
    np.testing.assert_allclose(found.boxes[:2], regions[kept], atol=1e-4)
    assert found.labels.tolist() == [1, 1, 2]
    wanted = [OBJECTS[i] for i in kept]
    np.testing.assert_allclose(found.class_scores[:2, 1], [x[0] for x in wanted], 1e-5)
    np.testing.assert_allclose(found.id_scores[:2, 1], [x[1] for x in wanted], 1e-5)
    assert not found.class_scores[2].any()
    assert not found.id_scores[2].any()


def test_padding_is_no_object():
    out, regions = scene(OBJECTS, REGIONS)
    found = find(
        out, regions, valid=np.array([False, True, False, True]),
        size=np.int32([64, 64]), first=np.bool_(True), coder=CODER, rule=RULE,
    )  # fmt: skip
    assert found.valid.tolist() == [True, False, False]
    np.testing.assert_allclose(found.boxes[0], regions[1], atol=1e-4)

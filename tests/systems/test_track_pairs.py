import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from vis_jax.detectors.frame_pair import Roles, frames_at
from vis_jax.structures import Batch
from vis_jax.systems.track_pairs import ImageDetections, pair_loss, regions_of

# Two true boxes, and four objects that overlap them by 0.6, 0.9, 1 and 0.4.
TRUE = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
SEEN = np.array(
    [[0, 0, 10, 6], [20, 0, 30, 9], [0, 0, 10, 10], [0, 0, 10, 4]], np.float32
)


def _regions(least, present=(True, True)):
    found = ImageDetections(SEEN, np.array([True, True, False, True]))
    run = compiled(regions_of, static_argnames="least")
    return run(found, TRUE, np.array(present), least=least)


def test_objects_found_and_true_boxes_train_the_head():
    regions = _regions(0.5)
    np.testing.assert_array_equal(regions.boxes, np.concatenate([SEEN, TRUE]))
    # The third is padding.
    np.testing.assert_array_equal(regions.counted, [1, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(regions.truth[regions.counted], [0, 1, 0, 1])


def test_regions_overlap_their_object_by_the_least_iou():
    np.testing.assert_array_equal(_regions(0.7).counted, [0, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(_regions(0.95).counted, [0, 0, 0, 0, 1, 1])


def test_what_is_not_in_the_key_frame_has_no_regions():
    regions = _regions(0.5, present=(True, False))
    np.testing.assert_array_equal(regions.counted, [1, 0, 0, 0, 1, 0])


def test_one_frame_of_every_clip():
    maps = [np.arange(6), np.arange(12).reshape(6, 2)]
    found = compiled(frames_at)(maps, np.array([2, 0]))
    np.testing.assert_array_equal(found[0], [2, 3])
    np.testing.assert_array_equal(found[1], [[4, 5], [6, 7]])


def _scaled(features, boxes):
    """An embedding of two numbers: where a box begins and ends, times a feature."""
    return features[:, None] * boxes[..., ::2] / 10


def _clip(present) -> Batch:
    """Two objects in three frames, in the same places."""
    boxes = np.tile(TRUE[None, :, None], (1, 1, 3, 1))
    return Batch(
        images=np.zeros((1, 3, 1, 1, 3), np.uint8),
        frame_valid=np.ones((1, 3), bool),
        sizes=np.array([[16, 32]], np.int32),
        masks=np.zeros((1, 2, 3, 1, 1), bool),
        boxes=boxes,
        present=np.array(present)[None],
        labels=np.zeros((1, 2), np.int32),
        track_ids=np.array([[1, 2]], np.int32),
        instance_valid=np.ones((1, 2), bool),
    )


def _loss(features, boxes, batch, roles):
    found = ImageDetections(boxes, jnp.array([[True, True, False, True]]))
    return pair_loss(_scaled, features, found, batch, roles=roles, least=0.5)


ROLES = Roles(np.array([1], np.int32), np.array([2], np.int32))
FEATURES = np.array([9.0, 0.5, 0.1], np.float32)[:, None]  # the first frame is not read


def test_regions_of_the_key_frame_choose_objects_of_the_reference_frame():
    """The second object has left: its regions are of none of the reference's."""
    batch = _clip([[True, True, True], [True, True, False]])
    key = 0.5 * np.array([SEEN[0], SEEN[1], *TRUE])[:, ::2] / 10
    logits = key @ (0.1 * TRUE[:1, ::2].T / 10)
    logits = np.concatenate([np.zeros((4, 1)), logits], axis=1)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -log_probs[np.arange(4), [1, 0, 1, 0]].mean()
    value = compiled(_loss)(FEATURES, SEEN[None], batch, ROLES)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_nothing_is_learned_where_objects_were_found():
    batch = _clip([[True, True, True], [True, True, True]])
    gradient = compiled(jax.grad(_loss, argnums=(0, 1)))
    features, boxes = gradient(FEATURES, SEEN[None], batch, ROLES)
    np.testing.assert_array_equal(features[:, 0] != 0, [False, True, True])
    assert not boxes.any()


def test_padded_slots_and_frames_have_no_objects():
    batch = _clip(np.ones((2, 3), bool))
    run = compiled(_loss)

    def loss(batch):
        return run(FEATURES, SEEN[None], batch, ROLES)

    without = loss(_clip([[True] * 3, [False] * 3]))
    slot = batch._replace(instance_valid=np.array([[True, False]]))
    np.testing.assert_array_equal(loss(slot), without)
    frame = batch._replace(frame_valid=np.array([[True, True, False]]))
    away = _clip([[True, True, False], [True, True, False]])
    np.testing.assert_array_equal(loss(frame), loss(away))

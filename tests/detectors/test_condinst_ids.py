import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.detectors.condinst import CondInstOutput
from vis_jax.detectors.condinst_ids import (
    IdRule,
    find_objects,
    id_probs,
    pixel_masks,
)
from vis_jax.detectors.fcos import places_of
from vis_jax.losses.fcos import FcosOutput
from vis_jax.ops.dynamic_masks import num_params

CELLS = ((4, 6), (2, 3), (1, 2), (1, 1), (1, 1))
COUNT = sum(h * w for h, w in CELLS)
CHANNELS = 2
RULE = IdRule(0.1, 0.1, 0.5, 20, 3, "code", "focal")

find = compiled(find_objects, static_argnames=("cells", "rule"))


def logit(p):
    return np.log(p) - np.log1p(-p)


def scene(objects, ids=2):
    """Some locations as (place, class, identity, half side); others have nothing."""
    classes, named = np.full((COUNT, 2), 1e-3), np.full((COUNT, ids), 1e-3)
    sides = np.ones((COUNT, 4))
    for place, a, b, side in objects:
        classes[place, 1], named[place, -1], sides[place] = a, b, side
    rng = np.random.default_rng(0)
    dense = FcosOutput(
        logit(classes), sides, np.full(COUNT, 30.0),
        rng.normal(0, 1, (COUNT, num_params(CHANNELS))), logit(named),
    )  # fmt: skip
    dense = FcosOutput(*(np.float32(x) for x in dense))
    features = rng.normal(0, 1, (4, 6, CHANNELS)).astype(np.float32)
    return CondInstOutput(dense, features), places_of(CELLS)


def kept(out, places, first, rule=RULE):
    size = np.array([32, 48], np.int32)
    found = find(out, places, size, first=np.bool_(first), cells=CELLS, rule=rule)
    return found, np.asarray(found.class_scores[found.valid][:, 1])


# Two boxes that overlap, of which one has the better class and one the better identity;
# a third one apart; and one whose class is no better than it must be.
OBJECTS = [(7, 0.9, 0.2, 30), (8, 0.2, 0.9, 30), (0, 0.5, 0.5, 2), (23, 0.099, 0.9, 2)]


@pytest.mark.parametrize(
    ("first", "rank", "scores"),
    [
        (True, "code", [0.9, 0.5]),  # 1.0, 0.65, 0.75
        (False, "code", [0.2, 0.5]),  # 0.65, 1.0, 0.75
        (False, "average", [0.9, 0.5]),  # all but equal: the first of them
    ],
)
def test_class_and_identity_change_places_after_the_first_frame(first, rank, scores):
    objects = OBJECTS
    if rank == "average":
        objects = [(7, 0.9, 0.21, 30), *OBJECTS[1:]]
    found, best = kept(*scene(objects), first, RULE._replace(rank=rank))
    np.testing.assert_allclose(best, scores, rtol=1e-5)
    assert not np.asarray(found.id_scores[~np.asarray(found.valid)]).any()


def test_both_thresholds_have_to_be_passed():
    found, best = kept(*scene([(7, 0.099, 0.9, 5), (23, 0.9, 0.099, 2)]), True)
    assert not found.valid.any()
    low = RULE._replace(class_threshold=0.09)
    assert (
        kept(*scene([(7, 0.099, 0.9, 5), (23, 0.9, 0.099, 2)]), True, low)[1].size == 1
    )
    low = RULE._replace(id_threshold=0.09)
    assert (
        kept(*scene([(7, 0.099, 0.9, 5), (23, 0.9, 0.099, 2)]), True, low)[1].size == 1
    )


def test_centreness_is_no_part_of_the_thresholds_but_of_rank_and_score():
    out, places = scene([(7, 0.5, 0.5, 5), (23, 0.4, 0.4, 2)])
    centres = out.dense.centre_logits.copy()
    centres[7] = logit(0.1)
    out = out._replace(dense=out.dense._replace(centre_logits=centres))
    np.testing.assert_allclose(kept(out, places, True)[1], [0.4, 0.05], rtol=1e-5)


def test_without_identities_the_class_ranks():
    out, places = scene(OBJECTS)
    none = np.zeros((COUNT, 0), np.float32)
    out = out._replace(dense=out.dense._replace(id_logits=none))
    for first in (True, False):
        found, best = kept(out, places, first)
        np.testing.assert_allclose(best, [0.9, 0.5], rtol=1e-5)
        assert found.id_scores.shape == (3, 0)


def test_a_softmax_has_a_background_that_is_no_identity():
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    probs = np.asarray(
        compiled(id_probs, static_argnames=("kind",))(logits, kind="softmax")
    )
    whole = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probs, whole[:, :3], rtol=1e-5)


def test_pixels_are_those_of_probabilities_enlarged():
    logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    probs = 1 / (1 + np.exp(-logits))
    at = [np.clip((np.arange(4 * n) - 2) / 4, 0, n - 1) for n in (3, 4)]
    whole = np.empty((2, 12, 16))
    for i, j in np.ndindex(12, 16):
        y, x = at[0][i], at[1][j]
        top, left = int(y), int(x)
        low, right = min(top + 1, 2), min(left + 1, 3)
        dy, dx = y - top, x - left
        whole[:, i, j] = (1 - dy) * (
            (1 - dx) * probs[:, top, left] + dx * probs[:, top, right]
        ) + dy * ((1 - dx) * probs[:, low, left] + dx * probs[:, low, right])
    found = np.asarray(compiled(pixel_masks)(logits))
    np.testing.assert_array_equal(found, whole > 0.5)
    assert found.any()
    assert not found.all()

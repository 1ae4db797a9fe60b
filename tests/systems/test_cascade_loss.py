import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.recipes import recipe
from vis_jax.detectors.cascade import Cascade
from vis_jax.detectors.cascade_losses import DetectorLosses, train_rules
from vis_jax.detectors.frame_pair import Pair
from vis_jax.detectors.rcnn_targets import ImageTruth, RegionTargets
from vis_jax.detectors.two_stage import BOX_SIDE
from vis_jax.systems import cascade_loss
from vis_jax.systems.cascade import build_model

SIDE = 64


def _pair() -> Pair:
    """Two clips of one object, which other pixels show in the other frame."""
    rng = np.random.default_rng(0)
    masks, there = np.zeros((2, 1, SIDE, SIDE), bool), np.ones((2, 1), bool)
    boxes = np.float32([[[2, 3, 30, 40]], [[10, 5, 50, 44]]])
    return Pair(
        images=rng.normal(size=(4, SIDE, SIDE, 3)).astype(np.float32),
        truth=ImageTruth(boxes, np.zeros((2, 1), np.int32), there),
        masks=masks,
        reference_boxes=boxes + 8,
        reference_present=there,
        reference_masks=masks,
    )


def _regions(boxes) -> RegionTargets:
    count = boxes.shape[:2]
    return RegionTargets(
        boxes=boxes + 2,
        truth=np.zeros(count, np.int32),
        labels=np.zeros(count, np.int32),
        deltas=jnp.zeros_like(boxes),
        positive=np.ones(count, bool),
        valid=np.ones(count, bool),
    )


@pytest.fixture
def network(monkeypatch):
    """A small cascade with a track head, whose losses are what they are given."""
    run = recipe("cascade_shapes", "track,debug")

    def losses(rng, model, features, objects, rules):
        return DetectorLosses({}, _regions(objects.truth.boxes), jnp.float32(0))

    def track(embeds, reference, positives, pair, *, least):
        return jnp.stack([embeds, reference])

    monkeypatch.setattr(cascade_loss, "detector_losses", losses)
    monkeypatch.setattr(cascade_loss, "region_track_loss", track)
    return build_model(run), train_rules(run.model)


def test_regions_of_the_key_frames_meet_true_boxes_of_the_others(network):
    model, rules = network

    def embed(variables, images, boxes):
        def both(self):
            levels = self.features(images).levels
            return levels, self.track_head(self.pool(levels, boxes, BOX_SIDE))

        return model.apply(variables, method=both)

    @compiled
    def run(key, pair):
        size = jnp.array([SIDE, SIDE], jnp.int32)
        variables = model.init(key, pair.images[:1], size, method=Cascade.look)
        found = cascade_loss.pair_losses(
            key, model, variables, pair, jnp.stack([size, size]),
            rules=rules, least=0.5, both=False,
        )  # fmt: skip
        key_frames = embed(variables, pair.images[:2], pair.truth.boxes + 2)
        others = embed(variables, pair.images[2:], pair.reference_boxes)
        return found, key_frames, others

    found, key_frames, others = run(jax.random.key(0), _pair())
    for ours, expected in (
        (found.key.levels, key_frames[0]),
        (found.other, others[0]),
        (tuple(found.aux.terms["track"]), (key_frames[1], others[1])),
    ):
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    assert np.abs(key_frames[1] - others[1]).max() > 0.01

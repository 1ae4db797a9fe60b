import functools

import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.association.track_scores import TrackScoreRule, TrackScoreSums, class_probs

# A track of four frames, three with a detection; two classes and the background.
TALLY = TrackScoreSums(
    frames=np.float32([4]),
    track_votes=np.float32([[3, 1]]),
    track_scores=np.float32([2.0]),
    seen=np.float32([3]),
    votes=np.float32([[1, 2]]),
    scores=np.float32([1.8]),
    logits=np.float32([[0, 3, 0]]),
)
LAST = np.log(np.float32([[0.2, 0.1, 0.7]]))  # class logits after the last frame
MEAN = np.e / (2 + np.e)  # softmax of the mean logits 0, 1, 0


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (TrackScoreRule("track", majority=False, mean=False), [0, 0.7]),
        (TrackScoreRule("track", majority=True, mean=False), [0.7, 0]),
        (TrackScoreRule("track", majority=False, mean=True), [0, 0.5]),
        (TrackScoreRule("track", majority=True, mean=True), [0.5, 0]),
        (TrackScoreRule("heuristic", majority=False, mean=False), [0, 0.6]),
        (TrackScoreRule("averaged", majority=False, mean=False), [MEAN, 0]),
    ],
)
def test_class_and_score_of_a_track(rule, expected):
    found = compiled(functools.partial(class_probs, rule=rule))(TALLY, LAST)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)

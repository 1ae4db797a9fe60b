import json

import numpy as np

from vis_jax.formats.results_json import video_entries


def test_the_entries_of_a_video_are_ready_for_json():
    mask = {"size": np.array([4, 6]), "counts": b"0h0"}
    entries = video_entries(
        np.array([1, 0], np.int32),
        np.array([0.5, 0.25], np.float32),
        [[mask, None], [None, mask]],
        video_id=np.int64(9),
        category_ids=[3, 7],
    )
    plain = {"size": [4, 6], "counts": "0h0"}
    expected = [
        {"video_id": 9, "category_id": 7, "score": 0.5, "segmentations": [plain, None]},
        {
            "video_id": 9,
            "category_id": 3,
            "score": 0.25,
            "segmentations": [None, plain],
        },
    ]
    assert json.loads(json.dumps(entries)) == expected

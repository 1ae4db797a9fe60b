"""Writes ground truth, results and frames with errors and hostile names."""

import json
import re

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tests.metrics.scenes import prediction, track, truth_file
from vis_jax.report.tubes import TO_PAGE

BACK = {code: sign for sign, code in TO_PAGE.items()}
T, SIZE = 5, (24, 40)
HOSTILE = "</script><img src=x onerror='window.hacked=1'>&amp;{{}}"
LEFT, RIGHT = np.zeros((2, *SIZE), bool)
LEFT[4:20, 4:16] = True
RIGHT[4:20, 24:36] = True


def write_scene(folder):
    """Writes truth.json, results.json and frames/; returns the three paths.

    Video 1 is predicted correctly. In video 2, predictions p1 and p2 swap identities in
    frame 3, and a third object has a prediction of the wrong class.
    """
    both = [LEFT] * 3 + [RIGHT] * 2, [RIGHT] * 3 + [LEFT] * 2
    low = np.roll(LEFT, 16, axis=1) & ~RIGHT
    truth = truth_file(
        [
            track(1, [LEFT] * T),
            track(2, [LEFT] * T, video=2),
            track(3, [RIGHT] * T, video=2),
            track(4, [None, low, low, None, None], video=2, category=2),
        ],
        lengths=(T, T),
        size=SIZE,
    )
    truth["videos"][1]["name"] = truth["categories"][1]["name"] = HOSTILE
    results = [
        prediction(0.9, [LEFT] * T),
        prediction(0.8, both[0], video=2),
        prediction(0.7, both[1], video=2),
        prediction(0.6, [None, low, low, None, None], video=2),
    ]
    paths = [folder / "truth.json", folder / "results.json", folder / "frames"]
    paths[0].write_text(json.dumps(truth))
    paths[1].write_text(json.dumps(results))
    for video in truth["videos"]:
        for t, name in enumerate(video["file_names"]):
            path = paths[2] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((*SIZE, 3), 50 * t, np.uint8)
            Image.fromarray(pixels).save(path, "JPEG")
    return paths


def content_in(page):
    """Returns the JSON inside a page."""
    found = re.search(r'id="content">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found[1])


def unpack(text, size):
    """Decodes a page's RLE mask: bool [H, W]."""
    counts = text.translate(BACK).encode()
    return coco_mask.decode({"size": list(size), "counts": counts}).astype(bool)

"""Exports of Label Studio: brushes and polygons of images."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipeline.convert.prepare import prepare
from data_pipeline.datasets.ytvis import YouTubeVis
from tests.data_pipeline.convert.test_prepare import tracks_of

HEIGHT, WIDTH = 48, 64


def brush(mask):
    """As Label Studio encodes the RGBA image of a brush: runs of up to 2^16 values,
    and literal values where these change each time."""
    values = np.zeros((*mask.shape, 4), np.uint8)
    values[mask] = (1, 2, 3, 255)
    flat = values.ravel().tolist()
    bits = f"{len(flat):032b}{7:05b}" + "".join(
        f"{size - 1:04b}" for size in (3, 4, 8, 16)
    )
    at = 0
    while at < len(flat):
        end = at + 1
        while end < len(flat) and flat[end] == flat[at]:
            end += 1
        if end - at > 1:
            bits += f"111{end - at - 1:016b}{flat[at]:08b}"
        else:  # the next values as they are, up to 8
            end = min(at + 8, len(flat))
            bits += f"000{end - at - 1:03b}" + "".join(f"{v:08b}" for v in flat[at:end])
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def square(x, y=10, side=10):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return mask


NOTHING = np.zeros((HEIGHT, WIDTH), bool)


def region(mask, label, *, polygon=False, number="r1", **changes):
    value = {"format": "rle", "rle": brush(mask), "brushlabels": [label]}
    if polygon:
        (top, left), (bottom, right) = np.argwhere(mask)[[0, -1]] + [[0, 0], [1, 1]]
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners]
        value = {"points": points, "closed": True, "polygonlabels": [label]}
    entry = {"id": number, "type": "polygonlabels" if polygon else "brushlabels"}
    entry |= {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return entry | {"value": value} | changes


def write(root, tasks):
    """Images of one video, and the export; tasks are results by number of the frame."""
    (root / "images").mkdir(parents=True)
    content = []
    for number, result in tasks.items():
        name = f"cat_{number:06d}.jpg"
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / name)
        annotations = [{"id": 1, "was_cancelled": True, "result": []}]
        annotations += [] if result is None else [{"id": 2, "result": result}]
        path = (
            f"/data/upload/7/0a1b2c3d-{name}" if number else f"/data/local/?d=x/{name}"
        )
        task = {"id": number, "data": {"image": path}, "annotations": annotations}
        content.append(task | {"predictions": []})
    (root / "project-1.json").write_text(json.dumps(content))


def by_category(labels):
    return [ord(label.category[0]) for label in labels]


def test_brushes_and_polygons(tmp_path):
    choice = {"type": "choices", "value": {"choices": ["sunny"]}, "from_name": "x"}
    apart = [  # a shape and its label, in two entries of one id
        region(
            square(7),
            "x",
            type="brush",
            value={"format": "rle", "rle": brush(square(7))},
        ),
        region(square(7), "x", type="labels", value={"labels": ["cat"]}),
    ]
    tasks = {
        10: [region(square(9), "cat"), choice],
        2: [
            region(square(5), "cat"),
            region(square(30), "dog", polygon=True, number="b"),
        ],
        0: apart,
        11: None,
    }
    write(tmp_path / "in", tasks)
    outcome = prepare(tmp_path / "in", tmp_path / "out", "train", link=by_category)
    assert outcome.found.layout == "label_studio"
    assert outcome.prepared.left_out == ("1 tasks without an annotation",)
    dataset = YouTubeVis(tmp_path / "out", "train")
    names = [name.rpartition("/")[2] for name in dataset.videos[0].file_names]
    assert names == ["cat_000000.jpg", "cat_000002.jpg", "cat_000010.jpg"]
    cat, dog = tracks_of(dataset, 0)
    assert (cat[0], dog[0]) == ("cat", "dog")
    np.testing.assert_array_equal(cat[1], [square(7), square(5), square(9)])
    np.testing.assert_array_equal(dog[1], [NOTHING, square(30), NOTHING])
    with pytest.raises(ValueError, match="4 labels without"):
        prepare(tmp_path / "in", tmp_path / "other", "train")


CODES = brush(square(5))
HUGE = [0xFF, 0xFF, 0xFF, 0xFF, *CODES[4:]]
DEFECTS = {
    "turned": ({"image_rotation": 90}, "region r1, image_rotation: expected 0"),
    "size": ({"original_width": 640}, "region r1, original_height, _width: expected"),
    "box": (
        {"type": "rectanglelabels"},
        r"result\[0\].type: expected brushes and poly",
    ),
    "two labels": (
        {"value": {"rle": CODES, "brushlabels": ["a", "b"]}},
        "region r1, labels: expected one label",
    ),
    "no label": ({"value": {"rle": CODES}}, "region r1, labels: expected one label"),
    "cut off": (
        {"value": {"rle": CODES[:-9], "brushlabels": ["a"]}},
        "region r1, rle: expected run lengths of 12288 values",
    ),
    "huge": (
        {"value": {"rle": HUGE, "brushlabels": ["a"]}},
        "rle: expected 12288 values of 8 bits, four for each pixel, got 4294967295",
    ),
    "no code": (
        {"value": {"rle": [300], "brushlabels": ["a"]}},
        "rle: expected at most .* whole numbers from 0 to 255",
    ),
    "open": (
        {"value": {"points": [[1, 1]] * 3, "closed": False, "polygonlabels": ["a"]}},
        "region r1, closed: expected true",
    ),
    "points": (
        {"value": {"points": [[1, None]], "polygonlabels": ["a"]}},
        r"region r1, points: expected a list of \[x, y\] in percent",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_of_a_region_is_named(name, tmp_path):
    changes, message = DEFECTS[name]
    write(tmp_path / "in", {2: [region(square(5), "cat", **changes)]})
    with pytest.raises(ValueError, match=f"annotation of task 2, {message}|{message}"):
        prepare(tmp_path / "in", tmp_path / "out", "train", link=by_category)


def test_tasks_that_are_refused(tmp_path):
    write(tmp_path / "in", {2: [region(square(5), "cat")]})
    file = tmp_path / "in/project-1.json"
    (task,) = json.loads(file.read_text())
    one = task["annotations"][1]
    for changes, message in (
        (
            {"annotations": [one, one]},
            "annotations: expected one that is not cancelled",
        ),
        ({"data": {"video": "/data/a.mp4"}}, "data: expected one field with the path"),
        ({"data": {"image": "s3://b/other.jpg"}}, "got 0 of other.jpg"),
        ({"annotations": [{"result": None}]}, "result: expected a list"),
    ):
        file.write_text(json.dumps([task | changes]))
        with pytest.raises(ValueError, match=message):
            prepare(tmp_path / "in", tmp_path / "out", "train", link=by_category)
    file.write_text(json.dumps([task, task]))
    with pytest.raises(ValueError, match="expected an image of one task"):
        prepare(tmp_path / "in", tmp_path / "out", "train", link=by_category)

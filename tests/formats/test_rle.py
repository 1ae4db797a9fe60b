import numpy as np
import pytest
from pycocotools import mask as coco

from vis_jax.formats.rle import (
    RleError,
    areas_of_runs,
    boxes_of_runs,
    compress_mask,
    concatenate_runs,
    decode_mask,
    runs_from_lists,
    runs_from_strings,
    string_from_polygons,
    take_runs,
)


def random_masks(density: float, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    masks = rng.random((5, height, width)) < density
    masks[0] = False
    return masks


def strings(masks: np.ndarray) -> list[bytes]:
    return [coco.encode(np.asfortranarray(m, np.uint8))["counts"] for m in masks]


def test_runs_go_down_the_columns():
    runs = runs_from_lists([[1, 2, 3]], 6)
    mask = decode_mask(runs, 0, height=2, width=3)
    np.testing.assert_array_equal(mask, [[0, 1, 0], [1, 0, 0]])
    assert areas_of_runs(runs).tolist() == [2]
    assert boxes_of_runs(runs, 2).tolist() == [[0, 0, 2, 2]]


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 40)])
def test_agrees_with_pycocotools(density, size):
    masks = random_masks(density, *size)
    runs = runs_from_strings(strings(masks), masks[0].size)
    np.testing.assert_array_equal(areas_of_runs(runs), masks.sum((1, 2)))
    for k, (mask, text) in enumerate(zip(masks, strings(masks), strict=True)):
        place = dict(height=size[0], width=size[1])
        np.testing.assert_array_equal(decode_mask(runs, k, **place), mask)
        assert compress_mask(runs, k, **place)["counts"] == text
        x, y, w, h = coco.toBbox({"size": list(size), "counts": text})
        expected = [x, y, x + w, y + h] if mask.any() else [0, 0, 0, 0]
        np.testing.assert_array_equal(boxes_of_runs(runs, size[0])[k], expected)


def test_lists_strings_and_selections_agree():
    masks = random_masks(0.3, 9, 11)
    runs = runs_from_strings(strings(masks), 99)
    counts = [
        np.diff(runs.ends[a:b], prepend=0).tolist()
        for a, b in zip(runs.splits[:-1], runs.splits[1:], strict=True)
    ]
    parts = [runs_from_lists([one], 99) for one in counts]
    for other in (runs_from_lists(counts, 99), concatenate_runs(parts)):
        np.testing.assert_array_equal(other.ends, runs.ends)
        np.testing.assert_array_equal(other.splits, runs.splits)
    taken = take_runs(runs, np.array([3, 1]))
    np.testing.assert_array_equal(areas_of_runs(taken), masks[[3, 1]].sum((1, 2)))


def test_polygons_are_joined():
    square, other = [1, 1, 5, 1, 5, 5, 1, 5], [3, 3, 9, 3, 9, 9, 3, 9]
    text = string_from_polygons([square, other], height=12, width=12)
    runs = runs_from_strings([text], 144)
    expected = np.zeros((12, 12), bool)
    expected[1:5, 1:5] = expected[3:9, 3:9] = True
    np.testing.assert_array_equal(decode_mask(runs, 0, height=12, width=12), expected)


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ([1, 2], "add up"),
        ([], "add up"),
        ([7, -1], "run lengths from 0"),
        ([6, 10**30], "below 2"),
        ([1, 2.5, 2.5], "run lengths"),
        ([3, "3"], "run lengths"),
        ([3, None, 3], "run lengths"),
        ([[3], 3], "run lengths"),
        ([[]], "run lengths"),
        ([6, 2**63 - 1, 3], "run lengths"),
    ],
)
def test_bad_lists_are_found(bad, expected):
    with pytest.raises(RleError, match=expected) as error:
        runs_from_lists([[6], bad], 6)
    assert error.value.index == 1


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (b"", "add up"),
        (b"3", "add up"),
        (b"6\x1f", "characters"),
        (b"6\xff", "characters"),
        (b"P", "stops inside"),
        (b"oooooooo0", "at most"),
        (b"O", "from 0"),  # -1
    ],
)
def test_bad_strings_are_found(bad, expected):
    with pytest.raises(RleError, match=expected) as error:
        runs_from_strings([b"6", bad, b"6"], 6)
    assert error.value.index == 1

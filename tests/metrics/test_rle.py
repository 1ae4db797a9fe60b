import numpy as np
import pytest
from pycocotools import mask as coco_mask

from vis_jax.metrics.rle import CHUNK, RleError, checked_areas


def runs_of(string):
    """rleFrString of maskApi.c in plain Python."""
    runs, at = [], 0
    while at < len(string):
        value, shift, more = 0, 0, True
        while more:
            digit = string[at] - 48
            value |= (digit & 31) << shift
            at, shift, more = at + 1, shift + 5, digit & 32
        if digit & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def masks(rng, n, size):
    densities = rng.random(n)[:, None, None]
    painted = rng.random((n, *size)) < densities
    painted[0], painted[1] = False, True
    codes = [coco_mask.encode(np.asfortranarray(m, np.uint8)) for m in painted]
    return painted, [code["counts"] for code in codes]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 61)])
def test_areas_are_exact(size):
    painted, strings = masks(np.random.default_rng(0), 50, size)
    pixels = np.full(50, size[0] * size[1])
    np.testing.assert_array_equal(checked_areas(strings, pixels), painted.sum((1, 2)))


def test_large_runs():
    raw = [[0, 2**29, 2**29], [2**29, 1, 2**29 - 1], [2**30], [0, 2**30]]
    codes = [{"size": [2**15, 2**15], "counts": counts} for counts in raw]
    strings = [coco_mask.frPyObjects(c, *c["size"])["counts"] for c in codes]
    areas = checked_areas(strings, np.full(4, 2**30))
    assert areas.tolist() == [2**29, 1, 0, 2**30]


def test_chunks_do_not_matter():
    painted, strings = masks(np.random.default_rng(1), 40, (64, 64))
    many = strings * (3 * CHUNK // sum(map(len, strings)) + 1)
    areas = checked_areas(many, np.full(len(many), 64 * 64))
    expected = np.tile(painted.sum((1, 2)), len(many) // 40)
    np.testing.assert_array_equal(areas, expected)
    broken = [*many[:-1], many[-1][:-1]]
    with pytest.raises(RleError) as error:
        checked_areas(broken, np.full(len(many), 64 * 64))
    assert error.value.index == len(many) - 1


def test_damaged_strings_pass_only_if_they_add_up():
    rng = np.random.default_rng(2)
    _, strings = masks(rng, 60, (9, 13))
    accepted = 0
    for _ in range(2000):
        damaged = bytearray(strings[rng.integers(len(strings))])
        for _ in range(rng.integers(1, 3)):
            damaged[rng.integers(len(damaged))] = rng.integers(48, 112)
        try:
            area = checked_areas([bytes(damaged)], np.array([9 * 13]))[0]
        except RleError:
            continue
        runs = runs_of(bytes(damaged))
        assert min(runs) >= 0 and sum(runs) == 9 * 13
        assert area == sum(runs[1::2])
        accepted += 1
    assert accepted > 5


def test_no_masks():
    assert checked_areas([], np.zeros(0, np.int64)).shape == (0,)

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from vis_jax.formats.rle import RleError
from vis_jax.formats.rle_check import CHUNK, check_masks


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


def named(strings, size):
    return [{"size": list(size), "counts": string} for string in strings]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 61)])
def test_areas_are_exact(size):
    painted, strings = masks(np.random.default_rng(0), 50, size)
    areas, mended = check_masks(named(strings, size))
    np.testing.assert_array_equal(areas, painted.sum((1, 2)))
    assert mended == 0


def test_large_runs():
    size, half = (3 * 2**12, 2**12 - 1), 2**24 - 1
    pixels = size[0] * size[1]
    raw = [
        [0, half, pixels - half],
        [half, 1, pixels - half - 1],
        [pixels],
        [0, pixels],
    ]
    raw.append([1, half, 0, 0, pixels - half - 1])
    codes = [coco_mask.frPyObjects({"size": size, "counts": c}, *size) for c in raw]
    areas, _ = check_masks(named([code["counts"] for code in codes], size))
    assert areas.tolist() == [half, 1, 0, pixels, half]


@pytest.mark.parametrize(
    "string",
    [
        b"0d00goooooOU2",  # -9 in seven characters
        b"nPPPPP4V2",  # 2**32 + 30 in seven
        b"0" + b"P" * 7 + b"0",  # 0 in eight
    ],
)
def test_what_pycocotools_misreads_is_refused(string):
    with pytest.raises(RleError, match="of more than 6 characters") as error:
        check_masks(named([b"T3", b"T3", string], (10, 10)))
    assert error.value.index == 2


def test_a_negative_run_is_refused():
    string = coco_mask.frPyObjects({"size": [10, 10], "counts": [10, 20, 70]}, 10, 10)
    negative = string["counts"][:-2] + b"fN" + string["counts"][-2:]
    assert min(runs_of(negative)) < 0
    with pytest.raises(RleError, match="or a negative one") as error:
        check_masks(named([string["counts"], negative], (10, 10)))
    assert error.value.index == 1


@pytest.mark.parametrize(
    "runs",
    [
        [10, 20, 10, 0, 30, 20, 10],
        [10, 30, 0, 0, 30, 20, 10],
        [0, 0, 0, 40, 60],
        [100, 0],
        [0, 0, 100],
        [0, 100, 0, 0],
    ],
)
def test_empty_runs_are_taken_out(runs):
    code = coco_mask.frPyObjects({"size": [10, 10], "counts": runs}, 10, 10)
    painted = np.repeat(np.arange(len(runs)) % 2, runs).reshape(10, 10).T
    whole = coco_mask.encode(np.asfortranarray(painted, np.uint8))
    areas, mended = check_masks([whole, code, whole])
    assert areas.tolist() == [painted.sum()] * 3
    assert mended == 1
    assert code["counts"] == whole["counts"]


def test_chunks_do_not_matter():
    painted, strings = masks(np.random.default_rng(1), 40, (64, 64))
    many = strings * (3 * CHUNK // sum(map(len, strings)) + 1)
    areas, _ = check_masks(named(many, (64, 64)))
    expected = np.tile(painted.sum((1, 2)), len(many) // 40)
    np.testing.assert_array_equal(areas, expected)
    broken = [*many[:-1], many[-1][:-1]]
    with pytest.raises(RleError) as error:
        check_masks(named(broken, (64, 64)))
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
            (area,), _ = check_masks(named([bytes(damaged)], (9, 13)))
        except RleError:
            continue
        runs = runs_of(bytes(damaged))
        assert min(runs) >= 0 and sum(runs) == 9 * 13
        assert area == sum(runs[1::2])
        accepted += 1
    assert accepted > 5


def test_no_masks():
    areas, mended = check_masks([])
    assert areas.shape == (0,) and mended == 0

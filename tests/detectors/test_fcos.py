import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.detectors.fcos import (
    FCOSHead,
    boxes_at,
    candidates,
    cells_of,
    places_of,
    suppress,
)

CELLS = ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2))


def levels(dim=256, dtype=np.float32, cells=CELLS):
    return tuple(jax.ShapeDtypeStruct((1, *size, dim), dtype) for size in cells)


def traced(head, dim=256, dtype=np.float32):
    call = head.init_with_output
    out, variables = jax.eval_shape(call, jax.random.key(0), levels(dim, dtype))
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    return out, count


@pytest.mark.parametrize(("ids", "convs", "count"), [
    (0, 1, 5_215_963), (20, 1, 5_852_399), (25, 1, 5_863_924),
    (20, 3, 7_033_071),
])  # fmt: skip
def test_the_published_size_has_the_published_numbers(ids, convs, count):
    out, found = traced(FCOSHead(256, 4, 40, 169, ids, convs))
    assert found == count
    assert [x.shape for x in out] == [
        (1, 323, 40), (1, 323, 4), (1, 323), (1, 323, 169), (1, 323, ids),
    ]  # fmt: skip


def test_outputs_are_float32_whatever_is_computed_in():
    head = FCOSHead(16, 1, 2, 9, 3, dtype=jnp.bfloat16)
    out, _ = traced(head, 16, jnp.bfloat16)
    assert {x.dtype for x in out} == {jnp.dtype("float32")}


def test_distances_are_pixels_and_every_level_has_a_scale():
    cells = ((2, 3), (1, 2), (1, 1), (1, 1), (1, 1))
    rng = np.random.default_rng(0)
    x = tuple(rng.normal(size=(2, *size, 8)).astype(np.float32) for size in cells)
    head = FCOSHead(8, 1, 2, 9)
    run = compiled(head.apply)
    params = compiled(head.init)(jax.random.key(0), x)["params"]
    # Boxes of some size, whatever the features.
    params["distances"]["bias"] = np.full(4, 2.0, np.float32)
    params["distances"]["kernel"] = np.zeros((3, 3, 8, 4), np.float32)
    plain = run({"params": params}, x)
    strides = np.repeat([8, 16, 32, 64, 128], [6, 2, 1, 1, 1])
    np.testing.assert_allclose(plain.distances[0, :, 0], 2 * strides, rtol=1e-6)
    for number in range(3, 8):
        params[f"scale{number}"] = np.full(1, number, np.float32)
    scaled = run({"params": params}, x)
    factors = np.log2(strides)
    np.testing.assert_allclose(
        scaled.distances, plain.distances * factors[None, :, None], rtol=1e-6
    )
    params["distances"]["bias"] = np.full(4, -2.0, np.float32)
    assert not run({"params": params}, x).distances.any()
    # Before training every class has a probability of a hundredth.
    probs = 1 / (1 + np.exp(-plain.class_logits))
    np.testing.assert_allclose(probs, 0.01, rtol=0.2)


def test_locations_are_the_middles_of_cells():
    places = compiled(lambda: places_of(CELLS))()
    of_levels = jax.eval_shape(lambda x: places_of(cells_of(x)), levels())
    assert jax.tree.map(jnp.shape, of_levels) == jax.tree.map(jnp.shape, places)
    np.testing.assert_array_equal(places.locations[:2], [[4, 4], [12, 4]])
    np.testing.assert_array_equal(places.locations[20], [4, 12])
    np.testing.assert_array_equal(places.locations[240 + 11], [16 + 8, 16 + 8])
    np.testing.assert_array_equal(places.locations[-1], [192, 64])
    counts = np.unique(places.strides, return_counts=True)
    np.testing.assert_array_equal(counts, [[8, 16, 32, 64, 128], [240, 60, 15, 6, 2]])
    boxes = compiled(boxes_at)(
        places.locations[:2], np.array([[1, 2, 3, 4], [0, 0, 0, 0]], np.float32)
    )
    np.testing.assert_array_equal(boxes, [[3, 2, 7, 8], [12, 4, 12, 4]])


def test_candidates_are_the_best_of_each_level():
    ranks = np.random.default_rng(0).permutation(323).astype(np.float32)
    found = compiled(candidates, static_argnames=("cells", "most"))(
        ranks, cells=CELLS, most=10
    )
    assert len(found) == 10 + 10 + 10 + 6 + 2
    starts = np.cumsum([0, 240, 60, 15, 6, 2])
    expected = [
        start + np.argsort(-ranks[start:end])[:10]
        for start, end in zip(starts, starts[1:], strict=False)
    ]
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_a_better_box_suppresses_those_of_all_classes():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 5]]
    kept = compiled(suppress, static_argnames=("iou_threshold", "size"))(
        np.array(boxes, np.float32), np.array([0.5, 0.9, 0.1, 0.7], np.float32),
        valid=np.array([True, True, True, False]), iou_threshold=0.5, size=6,
    )  # fmt: skip
    # The box kept first is 0.9; that of rank 0.7 is not valid; two are missing.
    np.testing.assert_array_equal(kept.valid, [True, True, False, False, False, False])
    np.testing.assert_array_equal(kept.chosen[:2], [1, 2])
    assert len(kept.chosen) == 6

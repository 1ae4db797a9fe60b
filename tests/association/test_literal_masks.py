"""The slow references of appearance and masks, against numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import correlate
from scipy.special import expit

from tests.association import literal_appearance, literal_masks
from tests.association.literal_layers import PAPER, PLUS, RELEASED


def test_downscaling_by_four_is_the_mean_of_the_central_pixels():
    plane = np.random.default_rng(0).normal(size=(8, 12))
    cells = plane.reshape(2, 4, 3, 4)[:, 1:3, :, 1:3]
    expected = cells.mean((1, 3))
    np.testing.assert_allclose(literal_appearance.bilinear(plane, (2, 3)), expected)


def test_upscaling_repeats_the_edge():
    out = literal_appearance.bilinear(np.array([[0.0, 4.0]]), (1, 4))
    np.testing.assert_allclose(out, [[0, 1, 3, 4]])


def test_detections_compete_for_pixels_with_the_background():
    logits = np.full((3, 1, 2), 10.0)
    logits[1, 0, 1] = 10 + np.log(2)
    logits[2] = 1e6  # padded
    shares = literal_appearance.pool_weights(logits, np.array([1, 1, 0], bool), (1, 2))
    # Thirds at the first pixel; 1/4, 2/4 and background 1/4 at the second.
    first, second = np.array([1 / 3, 1 / 4]), np.array([1 / 3, 1 / 2])
    np.testing.assert_allclose(shares[0, 0], first / (first.sum() + 1e-4))
    np.testing.assert_allclose(shares[1, 0], second / (second.sum() + 1e-4))
    assert not shares[2].any()
    # Alone inside its box, a detection has the sigmoid of its mask logit.
    alone = literal_appearance.pool_weights(
        np.array([[[10 + 0.7]]]), np.array([True]), (1, 1)
    )
    np.testing.assert_allclose(alone[0, 0, 0], expit(0.7) / (expit(0.7) + 1e-4))


def test_positions_of_a_small_map():
    out = literal_appearance.sine_positions(2, 4, 8)
    half, quarter = np.pi, np.pi / 2  # row 1 of 2, column 1 of 4
    expected = [f(half / d) for d in (1, 100) for f in (np.sin, np.cos)]
    expected += [f(quarter / d) for d in (1, 100) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(out[0, 0], expected, atol=1e-5)


def _weights():
    weights = {"psi4/w": np.array([[1.0, 0, 0, 0]]), "psi4/b": np.ones(4)}
    weights |= {"psi5/w": np.array([[0.0, 2, 0, 0]]), "psi5/b": np.zeros(4)}
    for layer in (1, 2, 3):
        weights |= {f"phi.{layer}/w": np.zeros((8, 8)), f"phi.{layer}/b": np.zeros(8)}
    return weights | {"phi.3/b": np.full(8, -1.5)}


def test_appearance_of_detections_and_of_the_frame():
    weights = _weights()
    features = (np.array([[[2.0], [4.0]]]), np.array([[[3.0]]]))
    logits = np.full((2, 1, 2), -1e3)
    logits[0, 0, 0] = logits[1] = 1e3
    valid = np.array([True, False])
    # psi: (3, 1, 1, 1) at the pixel of the detection, (0, 6, 0, 0); phi: ReLU(x - 1.5).
    logits[0, 0, 1] = logits[0, 0, 0]
    x = literal_appearance.detection_appearance(weights, PAPER, features, logits, valid)
    share = 1 / (2 + 1e-4)  # each of two pixels; 1 / (1 + 1e-4) on the single pixel
    pooled = np.array([8, 2, 2, 2, 0, 0, 0, 0]) * share
    pooled[5] = 6 / (1 + 1e-4)
    np.testing.assert_allclose(x[0], np.maximum(pooled - 1.5, 0), atol=1e-9)
    assert not x[1].any()
    mean = np.array([4.0, 1, 1, 1, 0, 6, 0, 0])
    described = literal_appearance.frame_appearance(weights, PAPER, features)
    np.testing.assert_allclose(described, np.maximum(mean - 1.5, 0))
    plain = literal_appearance.frame_appearance(weights, RELEASED, features)
    np.testing.assert_allclose(plain, mean)


def test_positions_are_added_to_both_levels():
    options = replace(PLUS, empty_appearance="mean")
    features = (np.zeros((1, 2, 1)), np.zeros((1, 1, 1)))
    x0 = literal_appearance.frame_appearance(_weights(), options, features)
    # One row: sin and cos of 2 pi. Columns at pi and 2 pi, then 2 pi alone.
    np.testing.assert_allclose(x0, [1, 2, 1, 1, 0, 1, 0, 1], atol=1e-5)


def test_box_mask_reads_points_from_edge_to_edge():
    # Points 0, 32, 64 across and 0, 48 down; both ends of a box are inside.
    mask = literal_masks.box_mask(np.array([32.0, 0, 64, 47]), (48, 64), (2, 3))
    np.testing.assert_array_equal(mask, [[0, 1, 1], [0, 0, 0]])


def test_masks_are_two_convolutions_of_raw_box_and_embedding():
    rng = np.random.default_rng(1)
    weights = {
        "masks.embedding/w": rng.normal(size=(5, 3)),
        "masks.embedding/b": rng.normal(size=3),
        "masks.conv1/w": rng.normal(size=(3, 3, 5, 4)),
        "masks.conv1/b": rng.normal(size=4),
        "masks.conv2/w": rng.normal(size=(3, 3, 4, 1)),
        "masks.conv2/b": rng.normal(size=1),
    }
    embedding = rng.normal(size=(3, 5))
    masks = rng.normal(size=(2, 4, 6)), rng.integers(0, 2, (2, 4, 6)).astype(float)
    status, chosen = np.array([1, 2, 0]), np.array([1, -1, -1])
    out = literal_masks.track_masks(weights, embedding, status, chosen, masks)
    np.testing.assert_array_equal(out[1:], -20.0)
    own = embedding[0] @ weights["masks.embedding/w"] + weights["masks.embedding/b"]
    maps = [masks[0][1], masks[1][1]]
    maps += [np.full((4, 6), max(value, 0)) for value in own]
    for name in ("masks.conv1", "masks.conv2"):
        kernel = weights[f"{name}/w"]
        maps = [
            bias
            + sum(
                correlate(plane, kernel[..., c, d], mode="constant")
                for c, plane in enumerate(maps)
            )
            for d, bias in enumerate(weights[f"{name}/b"])
        ]
        if name == "masks.conv1":
            maps = [np.maximum(plane, 0) for plane in maps]
    np.testing.assert_allclose(out[0], maps[0])
    plain = literal_masks.plain_masks(status, chosen, masks)
    np.testing.assert_allclose(plain[0], masks[0][1] + 10 * masks[1][1])
    np.testing.assert_array_equal(plain[1:], -20.0)


@pytest.mark.parametrize(
    ("background", "slots"), [(0.0, [0, 1, 2, 1, 0]), (10.0, [0, 0, 2, 0, 0])]
)
def test_map_of_slots(background, slots):
    logits = np.array([[-1.0, 3, 3, 5, 0], [-20, 2, 11, 5, -20]])
    out = literal_masks.slot_map(logits[:, None], background)
    np.testing.assert_array_equal(out, [slots])

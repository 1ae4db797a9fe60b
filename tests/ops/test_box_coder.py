import math

import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.box_coder import BOTH, ROI, UNIT, UPPER, BoxCoder, decode, encode

RPN_CODER = BoxCoder(UNIT, UPPER)
_encode = compiled(encode, static_argnames="coder")
_decode = compiled(decode, static_argnames="coder")


def test_deltas_of_a_drawn_box():
    reference = np.array([[0.0, 0, 4, 8]])
    box = np.array([[2.0, 4, 10, 8]])  # centre +4, +2; sides x 2, x 0.5
    expected = [1.0, 0.25, math.log(2), -math.log(2)]
    np.testing.assert_allclose(
        _encode(box, reference, coder=RPN_CODER)[0], expected, rtol=1e-6
    )
    scaled = _encode(box, reference, coder=BoxCoder(ROI, UPPER))[0]
    np.testing.assert_allclose(scaled, np.divide(expected, ROI), rtol=1e-6)


@pytest.mark.parametrize("stds", [UNIT, ROI])
def test_decoding_undoes_encoding(stds):
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 50, (2, 2, 7, 2))
    boxes = np.concatenate([corners, corners + sides + 1], axis=-1).astype(np.float32)
    boxes, references = boxes
    coder = BoxCoder(stds, BOTH)
    again = _decode(_encode(boxes, references, coder=coder), references, coder=coder)
    np.testing.assert_allclose(again, boxes, rtol=1e-4, atol=1e-3)


def test_sides_are_limited():
    reference, deltas = np.array([[0.0, 0, 16, 16]]), np.array([[0.0, 0, 99, -99]])
    wide = _decode(deltas, reference, coder=RPN_CODER)[0]
    np.testing.assert_allclose(wide, [-492, 8, 508, 8], rtol=1e-4)
    both = _decode(deltas, reference, coder=BoxCoder(UNIT, BOTH))[0]
    np.testing.assert_allclose(both[3] - both[1], 16 * 16 / 1000, rtol=1e-4)


def test_padding_stays_finite():
    zeros = np.zeros((2, 4))
    assert np.isfinite(_encode(zeros, zeros, coder=RPN_CODER)).all()

import functools

import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.flow import compose, flow_between, grey_at_stride, warp

SIZE = (48, 64)

between = compiled(flow_between, static_argnames=("levels", "warps"))
read = compiled(warp)
chain = compiled(compose)
grey = compiled(grey_at_stride, static_argnames="stride")


def _flow(a, b):
    a, b = (x.astype(np.float32) for x in (a, b))
    return between(a, b, levels=2, warps=6)


def _texture(seed=0, size=(128, 192)):
    """Noise with detail of all sizes from two pixels up, larger than a frame."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.normal(size=size))
    y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in size), indexing="ij")
    spectrum /= 0.02 + np.hypot(y, x)
    return np.fft.ifft2(spectrum * (np.hypot(y, x) < 0.25)).real


def _cut(texture, dx=0.0, dy=0.0):
    """A frame of the texture that has moved by dx, dy; fractions by the spectrum."""
    y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in texture.shape), indexing="ij")
    phase = np.exp(-2j * np.pi * (y * dy + x * dx))
    moved = np.fft.ifft2(np.fft.fft2(texture) * phase).real
    return moved[40 : 40 + SIZE[0], 60 : 60 + SIZE[1]]


def _counterparts(dx, dy, margin=4):
    """Pixels that the other frame shows, too, not at its border."""
    rows, columns = np.indices(SIZE)
    result = np.ones(SIZE, bool)
    for at, moved, length in ((rows, dy, SIZE[0]), (columns, dx, SIZE[1])):
        result &= (at >= margin) & (at < length - margin)
        result &= (at + moved >= margin) & (at + moved <= length - 1 - margin)
    return result


@pytest.mark.parametrize(
    "moved", [(0.5, -0.25), (3.3, 2.6), (-7.5, 5.0), (16.0, 0.0), (-15.5, -12.0)]
)
def test_a_translation_is_found_to_a_quarter_of_a_pixel(moved):
    texture = _texture()
    flow = _flow(_cut(texture), _cut(texture, *moved))
    apart = np.linalg.norm(flow - np.float32(moved), axis=-1)
    assert apart[_counterparts(*moved)].max() < 0.25


def test_equal_frames_have_no_flow():
    frame = _cut(_texture(1))
    assert (_flow(frame, frame) == 0).all()
    assert (_flow(0 * frame, 0 * frame) == 0).all()


def test_an_object_moves_before_a_background_that_does_not():
    background, look = _cut(_texture(2)), _cut(_texture(3)) + 1
    first, second = (np.zeros(SIZE, bool) for _ in range(2))
    first[10:30, 8:28] = second[16:36, 20:40] = True
    before = np.where(first, look, background)
    after = np.where(second, np.roll(look, (6, 12), axis=(0, 1)), background)
    # From the later frame to the earlier one, whose mask is known.
    flow = _flow(after, before)
    apart = np.linalg.norm(flow - np.float32((-12, -6)), axis=-1)
    assert (apart[second] < 0.25).mean() > 0.8
    still = np.linalg.norm(flow, axis=-1)[~(first | second)]
    assert (still < 0.25).mean() > 0.95
    # Uncovered background keeps a copy of the object: no flow leads there.
    found = read(first[..., None].astype(np.float32), flow)[..., 0] > 0.5
    assert found[second].mean() > 0.85


def test_a_moved_mask_is_carried_onto_itself():
    texture = _texture(4)
    mask = np.zeros(SIZE, np.float32)
    mask[12:30, 10:34] = 1
    moved = np.roll(mask, (5, 9), axis=(0, 1))
    flow = _flow(_cut(texture, 9, 5), _cut(texture))
    found = read(mask[..., None], flow)[..., 0] > 0.5
    assert (found & (moved > 0)).sum() / (found | (moved > 0)).sum() >= 0.95


def test_flows_add_up_along_a_chain():
    texture = _texture(5)
    frames = [_cut(texture, *moved) for moved in ((0, 0), (6, 2), (11, -1))]
    found = chain(_flow(frames[0], frames[1]), _flow(frames[1], frames[2]))
    apart = np.linalg.norm(found - np.float32((11, -1)), axis=-1)
    assert apart[_counterparts(11, 2, margin=6)].max() < 0.4
    # Each at its own place: the second flow is read where the first one leads.
    first = np.zeros((2, 4, 2), np.float32)
    first[..., 0] = 1
    second = np.zeros_like(first)
    second[:, :, 1] = np.arange(4)
    expected = np.broadcast_to(np.array([1, 2, 3, 3], np.float32), (2, 4))
    np.testing.assert_allclose(chain(first, second)[..., 1], expected)


def test_warping_reads_where_the_flow_leads():
    rows, columns = np.indices(SIZE, np.float32)
    flow = np.zeros((*SIZE, 2), np.float32)
    flow += np.array([2.5, -1.0], np.float32)
    found = read(np.stack([rows, columns], axis=-1), flow)
    inside = np.s_[1:, : SIZE[1] - 3]
    np.testing.assert_allclose(found[inside][..., 0], rows[inside] - 1, atol=1e-4)
    np.testing.assert_allclose(found[inside][..., 1], columns[inside] + 2.5, atol=1e-4)
    assert (found[0] == 0).all() and (found[:, -2:] == 0).all()


def test_brightness_of_cells():
    image = np.zeros((4, 8, 3), np.float32)
    image[:2, 4:6, 1] = 2.0  # green in a quarter of a cell
    np.testing.assert_allclose(grey(image, stride=4), [[0, 2 * 0.587 / 4]], rtol=1e-6)


def test_a_pyramid_ends_at_8_pixels():
    texture = _texture(6)
    frames = [_cut(texture, *moved)[:15, :20] for moved in ((0, 0), (3, 2))]
    small = [frame.astype(np.float32) for frame in frames]
    run = functools.partial(between, *small, warps=2)
    assert (run(levels=4) == run(levels=1)).all()
    assert np.median(np.abs(run(levels=4) - np.float32((3, 2)))) < 0.25

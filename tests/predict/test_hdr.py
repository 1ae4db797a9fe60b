import av
import numpy as np
import pytest

from vis_jax.predict import hdr
from vis_jax.predict.loop import warning_lines
from vis_jax.predict.sources import open_source
from vis_jax.predict.writer import RequestedOutputs


def _grey(signal, transfer):
    pixels = np.full((1, 1, 3), round(signal * 65_535), np.uint16)
    (values,) = hdr.to_ordinary(pixels, transfer)[0]
    assert values.max() - values.min() <= 1  # grey stays grey
    return int(values[0])


def test_dark_and_middle_tones_keep_their_light():
    # ITU-R BT.2408, table 1: 26 cd/m2 is 38 % of PQ and of HLG.
    expected = 255 * (26 / 203) ** (1 / 2.4)
    assert abs(_grey(0.38, hdr.PQ) - expected) < 3
    assert abs(_grey(0.38, hdr.HLG) - expected) < 5
    # Diffuse white: 58 % of PQ, 75 % of HLG, is bright, and not the brightest.
    for signal, transfer in ((0.58, hdr.PQ), (0.75, hdr.HLG)):
        assert 220 < _grey(signal, transfer) < 240
    assert _grey(0, hdr.PQ) == _grey(0, hdr.HLG) == 0
    assert _grey(1, hdr.PQ) == _grey(1, hdr.HLG) == 255


def test_brighter_light_is_never_darker_and_hues_stay():
    for transfer in (hdr.PQ, hdr.HLG):
        ramp = np.arange(0, 65_536, 16, dtype=np.uint16)
        pixels = np.repeat(ramp[None, :, None], 3, axis=2)
        steps = np.diff(hdr.to_ordinary(pixels, transfer)[0, :, 0].astype(int))
        assert steps.min() >= 0
    red = np.array([[[45_000, 22_000, 20_000]]], np.uint16)
    r, g, b = hdr.to_ordinary(red, hdr.HLG)[0, 0].astype(int)
    assert r > 2 * g and r > 2 * b


@pytest.mark.parametrize(("name", "transfer"), [("HLG", hdr.HLG), ("PQ", hdr.PQ)])
def test_a_video_of_high_dynamic_range_is_mapped_and_named(tmp_path, name, transfer):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        options = {"qp": "0"}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = transfer, 9, 9
        frame = av.VideoFrame(64, 64, "yuv420p10le")
        for plane, value in zip(frame.planes, (502, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = open_source(path)
    (pixels,) = source
    expected = _grey((502 - 64) / 876, transfer)  # of 10 bits in limited range
    np.testing.assert_allclose(pixels[32, 32], expected, atol=3)
    assert source.dynamic_range == name
    (line,) = warning_lines(source, RequestedOutputs())
    assert line == f"{path}: high dynamic range ({name}), tone-mapped to BT.709"

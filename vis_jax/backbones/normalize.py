"""Normalises uint8 frames as in the backbone's pretraining; nothing else does."""

import jax.numpy as jnp

from vis_jax.typing import Array, Float, Float32, Int32, UInt8

# Mean and standard deviation of red, green, blue, in 0 .. 255.
_IMAGENET = ((123.675, 116.280, 103.530), (58.395, 57.120, 57.375))
_COLOURS = {
    "torch": _IMAGENET,
    "caffe": _IMAGENET,
    "vgg": ((123.68, 116.779, 103.939), (58.393, 57.12, 57.375)),
}


def normalize(
    images: UInt8[Array, "T H W 3"] | Float[Array, "T H W 3"],
    size: Int32[Array, "2"],
    *,
    style: str,
) -> Float32[Array, "T H W 3"]:
    """Subtracts the mean colour and divides by the std; zero outside the content.

    Zero after normalisation gives the padding the mean colour, as in detectron2,
    whatever the pipeline padded with.

    Args:
      images: RGB in 0 .. 255.
      size: height, width of the content at the top left, in pixels.
      style: 'torch'; 'vgg' as in the released IAI; 'caffe' for weights trained with
        Caffe2 (BGR, no division).

    Raises:
      ValueError: unknown style.
    """
    if style not in _COLOURS:
        known = ", ".join(map(repr, _COLOURS))
        raise ValueError(f"style: expected one of {known}, got {style!r}")
    mean, spread = (jnp.array(x).reshape(1, 1, 1, 3) for x in _COLOURS[style])
    x = images.astype(jnp.float32) - mean
    x = x[..., ::-1] if style == "caffe" else x / spread
    rows = jnp.arange(x.shape[1]) < size[0]
    columns = jnp.arange(x.shape[2]) < size[1]
    inside = rows[:, None] & columns[None]
    return jnp.where(inside[None, :, :, None], x, 0.0)

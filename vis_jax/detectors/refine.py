"""MaskProp's refinement: high-resolution object masks from crops of a frame.

Bertasius and Torresani, "Classifying, Segmenting, and Tracking Object Instances in
Video with Mask Propagation", CVPR 2020, section 4.4: a patch of 384 x 384 pixels around
an object and its mask pass through three residual blocks of 128 channels. The patch's
extent in the frame, the last layer, the loss and the training boxes are not specified;
they are choices of this file. Letters: R objects per frame, h w cells of their masks
over their boxes, S side of a patch, s side of a refined mask.
"""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.conv import Conv
from vis_jax.losses.soft_iou import soft_iou_loss
from vis_jax.ops.bilinear import linear_weights
from vis_jax.ops.boxes import clip_boxes
from vis_jax.ops.masks import paste_masks
from vis_jax.settings import Count, section
from vis_jax.typing import Array, Bool, DTypeLike, Float32, Int32, PRNGKeyArray

_CONTEXT = 1.5  # side of a patch in the frame, relative to the box's longer side ..
_LEAST, _MOST = 64.0, 2.0  # .. at least so many pixels, at most twice the frame
_JITTER = 0.1  # largest shift of box sides in training, relative to the box
_SURE = 0.01  # probabilities are clipped to [this, 1 - this] before the logit
_EPSILON = 1.0  # pixels, in the soft IoU
_HE = nn.initializers.he_normal()


@section
class Settings:
    """`model.refinement`: high-resolution masks."""

    side: Count = 384  # pixels of a patch per axis
    dim: Count = 128  # channels of the residual blocks
    blocks: Count = 3
    # Patch pixels per cell of the refined mask; 2 costs a quarter.
    stride: Literal[1, 2] = 1
    # auto: patches are scaled so that every object fills the same share. native: at the
    # frame's resolution, which crops larger objects.
    crop: Literal["auto", "native"] = "auto"

    def __post_init__(self) -> None:
        if self.side % self.stride:
            raise ValueError(
                f"side: expected a multiple of stride, {self.stride}, got {self.side}"
            )


class Coarse(NamedTuple):
    """Detections of one frame."""

    boxes: Float32[Array, "R 4"]  # in pixels of the canvas
    probs: Float32[Array, "R h w"]  # mask probabilities over the boxes
    valid: Bool[Array, "R"]


class Refined(NamedTuple):
    """Refined masks of the same objects; zero for invalid objects."""

    probs: Float32[Array, "R s s"]
    boxes: Float32[Array, "R 4"]  # squares of the masks; may leave the canvas


class Patch(NamedTuple):
    """Crop of an object, the network's input."""

    pixels: Float32[Array, "S S 4"]  # normalised colours, and the mask
    probs: Float32[Array, "s s"]  # the mask at the cells of the refined one


@runtime_checkable
class Net(Protocol):
    """The network bound to its parameters."""

    def __call__(self, pixels: Float32[Array, "S S 4"], /) -> Float32[Array, "s s"]:
        """Returns the correction to the mask logits of a patch."""
        ...


class Refine(nn.Module):
    """Residual blocks on a patch.

    Each block has two 3 x 3 convolutions with group norm; the last layer starts at
    zero, so that refinement starts as the identity.
    """

    settings: Settings
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float32[Array, "S S 4"]) -> Float32[Array, "s s"]:
        """Returns the correction to the mask logits; see `Patch`."""
        dim, dtype = self.settings.dim, self.dtype

        def conv(x: Array, kernel: int, stride: int, name: str) -> Array:
            norm = "group" if kernel > 1 else None
            layer = Conv(
                dim, kernel, stride, norm, kernel_init=_HE, dtype=dtype, name=name
            )
            return layer(x)

        x = pixels[None].astype(dtype)
        for index in range(1, self.settings.blocks + 1):
            stride = self.settings.stride if index == 1 else 1
            y = nn.relu(conv(x, 3, stride, f"block{index}_conv1"))
            y = conv(y, 3, 1, f"block{index}_conv2")
            if index == 1:
                x = conv(x, 1, stride, "shortcut")
            x = nn.relu(x + y)
        zeros = nn.initializers.zeros
        last = Conv(1, 1, use_bias=True, kernel_init=zeros, dtype=dtype, name="logits")
        return last(x)[0, ..., 0].astype(jnp.float32)


def patch_boxes(
    boxes: Float32[Array, "R 4"], size: Int32[Array, "2"], settings: Settings
) -> Float32[Array, "R 4"]:
    """Returns squares around the centres of boxes; they may leave the frame.

    Args:
      boxes: in pixels of the canvas.
      size: height and width of the content in pixels.
      settings: determines their side in the frame.
    """
    corners, opposite = boxes[:, :2], boxes[:, 2:]
    if settings.crop == "native":
        side = jnp.full((len(boxes), 1), settings.side, jnp.float32)
    else:
        side = _CONTEXT * (opposite - corners).max(axis=1, keepdims=True)
        side = jnp.clip(side, _LEAST, _MOST * size.max().astype(jnp.float32))
    middle = (corners + opposite) / 2
    return jnp.concatenate([middle - side / 2, middle + side / 2], axis=1)


def read_patch(
    maps: Float32[Array, "H W C"], box: Float32[Array, "4"], side: int
) -> Float32[Array, "_ _ C"]:
    """Crops a box from a frame, sampled bilinearly at `side` x `side` points.

    Args:
      maps: zero outside the frame.
      box: in pixels, with the points at the centres of its cells; not empty.
      side: points per axis.
    """

    def along(axis: int, length: int) -> Float32[Array, "S L"]:
        low, high = box[axis], box[axis + 2]
        steps = (jnp.arange(side, dtype=jnp.float32) + 0.5) / side
        return linear_weights(low + steps * (high - low) - 0.5, length)

    rows, columns = along(1, maps.shape[0]), along(0, maps.shape[1])
    return jnp.einsum("yh,hwc,xw->yxc", rows, maps, columns)


def make_patch(
    pixels: Float32[Array, "H W 3"],
    probs: Float32[Array, "h w"],
    box: Float32[Array, "4"],
    square: Float32[Array, "4"],
    settings: Settings,
) -> Patch:
    """Crops the patch of an object.

    Args:
      pixels: pixels of the frame, normalised.
      probs: probabilities of the mask over its box.
      box: box of the object, in pixels.
      square: square of the patch, in pixels.
      settings: side and stride.
    """
    corner = jnp.tile(square[:2], 2)
    place = (box - corner) / (square[2] - square[0])  # in patch units

    def paste(side: int) -> Float32[Array, "_ _"]:
        return paste_masks(probs[None], place[None] * side, size=(side, side))[0]

    fine = paste(settings.side)
    coarse = fine if settings.stride == 1 else paste(settings.side // settings.stride)
    colours = read_patch(pixels, square, settings.side)
    return Patch(jnp.concatenate([colours, fine[..., None]], axis=-1), coarse)


def refine_masks(
    net: Net,
    pixels: Float32[Array, "H W 3"],
    coarse: Coarse,
    *,
    size: Int32[Array, "2"],
    settings: Settings,
) -> Refined:
    """Refines the masks of a frame's objects, one at a time.

    Args:
      net: bound to its parameters.
      pixels: pixels of the frame, normalised.
      coarse: the objects; invalid ones cost nothing.
      size: height and width of the content in pixels.
      settings: settings of the network.
    """
    squares = patch_boxes(coarse.boxes, size, settings)
    side = settings.side // settings.stride

    def one(inputs: tuple[Array, ...]) -> Float32[Array, "s s"]:
        probs, box, square, valid = inputs

        def refine() -> Float32[Array, "s s"]:
            return _refined(net, make_patch(pixels, probs, box, square, settings))

        nothing = jnp.zeros((side, side), jnp.float32)
        return jax.lax.cond(valid, refine, lambda: nothing)

    probs = jax.lax.map(one, (coarse.probs, coarse.boxes, squares, coarse.valid))
    return Refined(probs, jnp.where(coarse.valid[:, None], squares, 0.0))


def refine_loss(
    net: Net,
    pixels: Float32[Array, "H W 3"],
    coarse: Coarse,
    truth: Bool[Array, "R H W"],
    *,
    size: Int32[Array, "2"],
    settings: Settings,
) -> Float32[Array, ""]:
    """Returns 1 - soft IoU with ground-truth masks in patches, mean over valid objects.

    Args:
      net: bound to its parameters; the backward pass reruns it, one object at a time.
      pixels: pixels of the frame, normalised.
      coarse: a few objects, with jittered boxes and the masks detected there; not
        differentiated.
      truth: their ground-truth masks.
      size: height and width of the content in pixels.
      settings: settings of the network.
    """
    squares = patch_boxes(coarse.boxes, size, settings)
    side = settings.side // settings.stride
    fixed = jax.lax.stop_gradient(coarse.probs)

    @jax.checkpoint
    def one(inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        probs, box, square, mask = inputs
        found = _refined(net, make_patch(pixels, probs, box, square, settings))
        wanted = read_patch(mask[..., None].astype(jnp.float32), square, side)
        return found, wanted[..., 0]

    found, wanted = jax.lax.map(one, (fixed, coarse.boxes, squares, truth))
    return soft_iou_loss(
        found[:, None],
        wanted[:, None],
        coarse.valid[:, None],
        epsilon=_EPSILON,
        normalisation="mean",
    )


def jitter_boxes(
    rng: PRNGKeyArray, boxes: Float32[Array, "M 4"], size: Int32[Array, "2"]
) -> Float32[Array, "M 4"]:
    """Shifts the sides of boxes at random, to imitate detection errors.

    Args:
      rng: random key; each side moves by up to a tenth of the box.
      boxes: in pixels.
      size: height and width of the content, to which boxes are clipped.
    """
    extent = jnp.tile(boxes[:, 2:] - boxes[:, :2], 2)
    shift = jax.random.uniform(rng, boxes.shape, minval=-_JITTER, maxval=_JITTER)
    return clip_boxes(boxes + shift * extent, size)


def _refined(net: Net, patch: Patch) -> Float32[Array, "s s"]:
    """Returns the refined mask probabilities."""
    probs = jnp.clip(patch.probs, _SURE, 1 - _SURE)
    known = jnp.log(probs) - jnp.log1p(-probs)
    return jax.nn.sigmoid(known + net(patch.pixels))

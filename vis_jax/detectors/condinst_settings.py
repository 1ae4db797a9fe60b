"""Settings of CondInst shared by all systems on it.

Tian et al., "Conditional Convolutions for Instance Segmentation", ECCV 2020.
"""

from typing import Annotated, Literal

from vis_jax import backbones
from vis_jax.backbones import resnet
from vis_jax.backbones.fpn import Settings as FpnSettings
from vis_jax.detectors import fcos
from vis_jax.detectors.condinst import MaskSettings
from vis_jax.detectors.fcos import STRIDES
from vis_jax.settings import Count, Natural, Range, Weight, section


@section
class ModelSettings:
    """`model` of a CondInst."""

    num_classes: Natural = 0  # 0 = as many as the data set has
    backbone: backbones.Settings = resnet.Settings(norm="frozen_stats")
    fpn: FpnSettings = FpnSettings(extra="relu_conv")
    head: fcos.Settings = fcos.Settings()
    masks: MaskSettings = MaskSettings()
    # Pixel scaling: as for the backbone's weights, or as in IAI.
    pixels: Literal["backbone", "vgg"] = "backbone"


@section
class LossSettings:
    """`loss`: the weight of every term, and which locations are trained on."""

    box_class: Weight = 1.0  # class of a location
    box: Weight = 1.0  # box of a location
    centre: Weight = 1.0  # centreness
    mask: Weight = 1.0  # mask of a location
    # Objects are assigned locations in a square around the mask centroid: half its
    # side, in strides.
    radius: Annotated[float, Range(above=0)] = 1.5
    # Largest distance in pixels from a location to a side of its box, for each level
    # but the last.
    ranges: Annotated[tuple[float, ...], Range(above=0)] = (64.0, 128.0, 256.0, 512.0)
    positives: Count = 256  # most locations of an image whose masks are trained

    def __post_init__(self) -> None:
        levels = len(STRIDES) - 1
        if len(self.ranges) != levels or list(self.ranges) != sorted(set(self.ranges)):
            raise ValueError(
                f"ranges: expected {levels} in ascending order, got {self.ranges}"
            )


def pixel_style(pixels: str, backbone: backbones.Settings) -> str:
    """Returns the style of `normalize` selected by `model.pixels`."""
    return backbones.pixel_style(backbone) if pixels == "backbone" else pixels

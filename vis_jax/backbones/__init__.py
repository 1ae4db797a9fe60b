"""Backbones: images to {"res2": stride 4, "res3": 8, "res4": 16, "res5": 32}.

All are called as (images, train, valid); `valid` excludes images from statistics.
"""

import flax.linen as nn
import jax.numpy as jnp

from vis_jax.backbones import resnet, swin
from vis_jax.backbones.resnet import ResNet
from vis_jax.backbones.swin import Swin

Settings = resnet.Settings | swin.Settings
BACKBONES: dict[str, type[nn.Module]] = {"resnet": ResNet, "swin": Swin}


def build_backbone(settings: Settings, dtype: jnp.dtype) -> nn.Module:
    """Builds the backbone of `model.backbone`, computing in `dtype`."""
    fields = dict(vars(settings))
    return BACKBONES[fields.pop("name")](**fields, dtype=dtype)


def pixel_style(settings: Settings) -> str:
    """Returns the pixel style of `normalize` for this backbone: 'torch' or 'caffe'."""
    return settings.style if isinstance(settings, resnet.Settings) else "torch"


def stage_channels(settings: Settings, stage: str) -> int:
    """Returns the channels of one of 'res2' .. 'res5'."""
    if isinstance(settings, resnet.Settings):
        variant = resnet.VARIANTS[settings.variant]
        first = variant.width * (4 if variant.block == "bottleneck" else 1)
    else:
        first = settings.dim or swin.VARIANTS[settings.variant].dim
    return first * 2 ** (int(stage.removeprefix("res")) - 2)

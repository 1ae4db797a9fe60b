"""Backbones: images to {"res2": stride 4, "res3": 8, "res4": 16, "res5": 32}."""

from vis_jax.backbones.resnet import ResNet
from vis_jax.backbones.swin import Swin

BACKBONES = {"resnet": ResNet, "swin": Swin}

"""OSMN weights: both trunks from torchvision's VGG-16, or all of the authors'.

The authors' TensorFlow checkpoint must first be saved as a pickled dict of arrays by
variable name. It expects BGR images, so the model needs style 'caffe'; torchvision's
weights need 'torch'.
"""

import numpy as np

from vis_jax.converters.mask_rcnn import roi_kernel
from vis_jax.converters.rules import NameRule
from vis_jax.converters.transforms import kernel, same

_TRUNKS = ("params/osmn/seg", "params/osmn/modulator/trunk")
_DEPTHS = (2, 2, 3, 3, 3)
_LEAVES = (("weight", "kernel", kernel), ("bias", "bias", same))


def _trunk_rules() -> list[NameRule]:
    """Returns rules for `features.N`: convolutions, ReLUs, a pooling per block."""
    rules, number = [], 0
    for block, depth in enumerate(_DEPTHS, 1):
        for index in range(1, depth + 1):
            path = f"conv{block}/conv{block}_{index}"
            rules += [
                NameRule(
                    rf"features\.{number}\.{old}",
                    tuple((f"{trunk}/{path}/{new}", how) for trunk in _TRUNKS),
                )
                for old, new, how in _LEAVES
            ]
            number += 2
        number += 1
    return rules


_FC = "params/osmn/modulator/fc"

TORCHVISION = [
    *_trunk_rules(),
    NameRule(r"classifier\.0\.weight", ((f"{_FC}6/kernel", roi_kernel),)),
    NameRule(r"classifier\.0\.bias", ((f"{_FC}6/bias", same),)),
    NameRule(r"classifier\.3\.weight", ((f"{_FC}7/kernel", kernel),)),
    NameRule(r"classifier\.3\.bias", ((f"{_FC}7/bias", same),)),
    NameRule(r"classifier\.6\..*", dropped="ImageNet classifier"),
]

# Parts not pretrained on ImageNet, and everything other than OSMN.
NEW = (
    r"(params|constants|batch_stats)/(?!osmn/).*",
    r"(params|batch_stats)/osmn/modulator_sp/.*",
    r"params/osmn/modulator/fc8/.*",
    r"params/osmn/seg/(side\d|upscore_fuse)/.*",
)

_TF_NORMS = {
    "gamma": "params/osmn/modulator_sp/norm{}/scale",
    "beta": "params/osmn/modulator_sp/norm{}/bias",
    "moving_mean": "batch_stats/osmn/modulator_sp/norm{}/mean",
    "moving_variance": "batch_stats/osmn/modulator_sp/norm{}/var",
}
# Checkpoint name to path; kernels have the same layout.
_TF_LAYERS = {
    r"osmn/seg/(conv\d/conv\d_\d)": r"params/osmn/seg/\1",
    **{
        rf"osmn/seg/conv{block}_{depth}_16": f"params/osmn/seg/side{block}"
        for block, depth in enumerate(_DEPTHS, 1)
    },
    r"osmn/seg/upscore-fuse": r"params/osmn/seg/upscore_fuse",
    r"osmn/modulator/(conv\d/conv\d_\d)": r"params/osmn/modulator/trunk/\1",
    r"osmn/modulator/(fc\d)": r"params/osmn/modulator/\1",
    r"osmn/modulator_sp/(conv\d)": r"params/osmn/modulator_sp/\1",
}


def _tf_kernel_back(array: np.ndarray, outputs: int) -> np.ndarray:
    """Reshapes [in, out] of a linear layer to [1, 1, in, out], a convolution there."""
    del outputs
    return array[None, None] if array.ndim == 2 else array


def _tf_fuse_back(array: np.ndarray, outputs: int) -> np.ndarray:
    """Reshapes [sides, C] to [1, 1, sides * C, 1]."""
    del outputs
    return array.reshape(1, 1, -1, 1)


_TF_KERNEL = same._replace(back=_tf_kernel_back)

AUTHORS = [
    NameRule(r".*/Adam(_1)?|beta\d_power|global_step", dropped="state of the training"),
    NameRule(r"osmn/seg/score-multi\d-up/weights", dropped="fixed bilinear kernels"),
    NameRule(
        "osmn/seg/upscore-fuse/weights",
        (
            (
                "params/osmn/seg/upscore_fuse/kernel",
                same._replace(back=_tf_fuse_back),
            ),
        ),
    ),
    *[
        NameRule(f"{source}/{old}", ((f"{target}/{new}", how),))
        for source, target in _TF_LAYERS.items()
        for old, new, how in (
            ("weights", "kernel", _TF_KERNEL),
            ("biases", "bias", same),
        )
    ],
    *[
        NameRule(
            rf"osmn/modulator_sp/conv(\d)/BatchNorm/{old}",
            ((path.format(r"\1"), same),),
        )
        for old, path in _TF_NORMS.items()
    ],
]
AUTHORS_NEW = NEW[:1]

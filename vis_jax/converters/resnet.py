"""ResNet weights of detectron2 models, torchvision and Caffe2 (MSRA)."""

import re
from collections.abc import Sequence

import numpy as np

from vis_jax.converters.rules import NameRule, Rename, Renamed
from vis_jax.converters.transforms import kernel, same

# Batch norm of ImageNet models; nothing else keeps its initial value.
CONSTANTS = {
    "weight": "scale",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "var",
}


def resnet_rules(source: str, target: str) -> list[NameRule]:
    """Returns rules for a ResNet in detectron2's layout.

    Args:
      source: prefix of the names, 'backbone.'.
      target: path of the module without its collection, 'backbone/'.
    """
    source = source.replace(".", r"\.")
    rules = []
    for block, path in ((r"stem\.(conv1)", "stem"), (r"(res\d)\.(\d+)\.(\w+)", "")):
        inside = f"{target}stem/\\1" if path else f"{target}\\1_\\2/\\3"
        rules.append(
            NameRule(
                f"{source}{block}\\.weight", ((f"params/{inside}/kernel", kernel),)
            )
        )
        rules += [
            NameRule(
                f"{source}{block}\\.norm\\.{old}",
                ((f"constants/{inside}/norm/{new}", same),),
            )
            for old, new in CONSTANTS.items()
        ]
    rules[:0] = [
        NameRule(
            rf"{source}(res\d)\.(\d+)\.(\w+)_offset\.{old}",
            ((f"params/{target}\\1_\\2/\\3/offset/{new}", transform),),
        )
        for old, new, transform in (
            ("weight", "kernel", kernel),
            ("bias", "bias", same),
        )
    ]
    count = NameRule(
        rf"{source}.*num_batches_tracked", dropped="counter of training steps"
    )
    bias = NameRule(rf"{source}stem\.conv1\.bias", dropped="a bias of zeros")
    return [*rules, count, bias]


def trained_affine(rules: Sequence[NameRule]) -> list[NameRule]:
    """Returns the rules for norms with trainable scale and bias."""
    return _moved(rules, r"constants/(.*/norm/(?:scale|bias))", r"params/\1")


def running_statistics(rules: Sequence[NameRule]) -> list[NameRule]:
    """Returns the rules for norms that also update mean and variance."""
    rules = trained_affine(rules)
    return _moved(rules, r"constants/(.*/norm/(?:mean|var))", r"batch_stats/\1")


def _moved(rules: Sequence[NameRule], pattern: str, place: str) -> list[NameRule]:
    return [
        rule._replace(
            targets=tuple(
                (re.sub(pattern, place, path), transform)
                for path, transform in rule.targets
            )
        )
        for rule in rules
    ]


_STEM = re.compile(r"(backbone\.(?:bottom_up\.)?stem\.conv1)\.bias")


def fold_stem_bias(renamed: Renamed) -> tuple[Renamed, tuple[str, ...]]:
    """Folds the stem convolution's bias, as in Caffe files, into its norm.

    norm(x + bias) equals norm(x) with the mean reduced by the bias. A zero bias is left
    to the rule that drops it.

    Returns:
      The tensors, and report lines.
    """
    name = next((name for name in renamed.tensors if _STEM.fullmatch(name)), None)
    if name is None or not renamed.tensors[name].any():
        return renamed, ()
    tensors, origins = dict(renamed.tensors), dict(renamed.origins)
    mean = name.replace(".bias", ".norm.running_mean")
    bias, old = tensors.pop(name), origins.pop(name)
    # Without statistics, scale and bias include them: mean 0, variance 1.
    tensors[mean] = tensors.get(mean, np.zeros_like(bias)) - bias
    origins[mean] = (*old, *origins.get(mean, ()))
    line = f"{old[0]}, a bias of the first convolution, is taken off the mean behind it"
    return Renamed(tensors, origins), (line,)


# ImageNet models are not deformable; offsets start at zero.
OFFSETS = r"params/backbone/res\d_\d+/conv2/offset/(kernel|bias)"

# ImageNet files also contain the classifier.
CLASSIFIER = NameRule(
    r"(fc|linear|fc1000|pred)[._].*|.*_momentum|lr",
    dropped="ImageNet classifier or state of its training",
)

NORM_FIELDS = r"(weight|bias|running_mean|running_var|num_batches_tracked)"

# Maps torchvision's names to detectron2's.
TORCHVISION = [
    Rename(r"conv1\.(weight|bias)", r"backbone.stem.conv1.\1"),
    Rename(rf"bn1\.{NORM_FIELDS}", r"backbone.stem.conv1.norm.\1"),
    *[
        rename
        for stage in range(1, 5)
        for rename in (
            Rename(
                rf"layer{stage}\.(\d+)\.conv(\d)\.weight",
                rf"backbone.res{stage + 1}.\1.conv\2.weight",
            ),
            # From mmdetection, whose deformable layers are otherwise equal.
            Rename(
                rf"layer{stage}\.(\d+)\.conv2(?:\.conv)?_offset\.(weight|bias)",
                rf"backbone.res{stage + 1}.\1.conv2_offset.\2",
            ),
            Rename(
                rf"layer{stage}\.(\d+)\.bn(\d)\.{NORM_FIELDS}",
                rf"backbone.res{stage + 1}.\1.conv\2.norm.\3",
            ),
            Rename(
                rf"layer{stage}\.(\d+)\.downsample\.0\.weight",
                rf"backbone.res{stage + 1}.\1.shortcut.weight",
            ),
            Rename(
                rf"layer{stage}\.(\d+)\.downsample\.1\.{NORM_FIELDS}",
                rf"backbone.res{stage + 1}.\1.shortcut.norm.\2",
            ),
        )
    ],
]

_CAFFE_NORM_FIELDS = {
    "(?:s|gamma)": "weight",
    "(?:b|beta)": "bias",
    "(?:rm|running_mean)": "running_mean",
    "(?:riv|running_var)": "running_var",
}
_CAFFE_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}

# Maps Caffe2's names (conv1_w, res_conv1_bn_s, res2_0_branch2a_bn_s) to the same.
CAFFE2 = [
    Rename("conv1_w", "backbone.stem.conv1.weight", alias=True),
    Rename("conv1_b", "backbone.stem.conv1.bias", alias=True),
    *[
        Rename(
            f"(?:res_)?conv1_bn_{old}", f"backbone.stem.conv1.norm.{new}", alias=True
        )
        for old, new in _CAFFE_NORM_FIELDS.items()
    ],
    *[
        Rename(
            rf"res(\d)_(\d+)_branch{branch}_w",
            rf"backbone.res\1.\2.{conv}.weight",
            alias=True,
        )
        for branch, conv in _CAFFE_BRANCHES.items()
    ],
    *[
        Rename(
            rf"res(\d)_(\d+)_branch{branch}_bn_{old}",
            rf"backbone.res\1.\2.{conv}.norm.{new}",
            alias=True,
        )
        for branch, conv in _CAFFE_BRANCHES.items()
        for old, new in _CAFFE_NORM_FIELDS.items()
    ],
]

# Detectron2's ImageNet files have no prefix.
DETECTRON2 = [Rename(r"((?:stem|res\d)\..*)", r"backbone.\1", alias=True)]

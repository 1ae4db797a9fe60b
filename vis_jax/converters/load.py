"""Loads a published file into the variables of a model."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vis_jax.converters import (
    condinst,
    htc,
    huggingface,
    iai,
    mask2former,
    mask_rcnn,
    mask_track_rcnn,
    resnet,
    rgnn_vis,
    swin,
    vgg,
    videomt,
    vit,
    yolact,
)
from vis_jax.converters.files import WeightsSource, read_source
from vis_jax.converters.rules import (
    ConvertReport,
    MisfitError,
    NameRule,
    Rename,
    convert,
    known,
    rename,
)
from vis_jax.converters.sizes import resized


class Kind(NamedTuple):
    """Conversion tables of one kind of file."""

    renames: Sequence[Rename]
    rules: Sequence[NameRule]
    new: Sequence[str]


# Present if a ResNet trains scale and bias of its norms but not their statistics.
_TRAINED_SCALE = "params/backbone/stem/conv1/norm/scale"
_FIXED_MEAN = "constants/backbone/stem/conv1/norm/mean"

# Present if it also updates the statistics.
_RUNNING_MEAN = "batch_stats/backbone/stem/conv1/norm/mean"

# Kinds whose decoder rules depend on the model.
WHOLE = ("mask2former", "huggingface")

_NOT_BACKBONE = r"(params|constants|batch_stats)/(?!backbone/).*"

KINDS = {
    # A CondInst has no association across frames.
    "condinst": Kind(condinst.NAMES, condinst.RULES, (iai.ASSOCIATION,)),
    # A Hybrid Task Cascade has no tracking head and no propagation.
    "htc": Kind(htc.NAMES, htc.RULES, (mask_track_rcnn.TRACK_HEAD, htc.PROPAGATION)),
    "iai": Kind(iai.NAMES, iai.RULES, ()),
    "mask2former": Kind(
        mask2former.OLD_NAMES,
        [*mask2former.BACKBONE, *mask2former.PIXEL_DECODER, *mask2former.HEADS],
        (),
    ),
    "huggingface": Kind(
        huggingface.MODEL,
        [
            *mask2former.BACKBONE,
            *mask2former.PIXEL_DECODER,
            *mask2former.HEADS,
            huggingface.UNUSED,
        ],
        (),
    ),
    # A Mask R-CNN has no tracking head and no association across frames.
    "mask_rcnn_detectron2": Kind(
        (),
        mask_rcnn.DETECTRON2,
        (mask_track_rcnn.TRACK_HEAD, iai.REGION_ASSOCIATION),
    ),
    "mask_rcnn_torchvision": Kind(
        mask_rcnn.TORCHVISION_NAMES,
        mask_rcnn.TORCHVISION,
        (mask_track_rcnn.TRACK_HEAD, iai.REGION_ASSOCIATION),
    ),
    "mask_track_rcnn": Kind(
        mask_track_rcnn.NAMES, mask_track_rcnn.RULES, (iai.REGION_ASSOCIATION,)
    ),
    "osmn": Kind((), vgg.AUTHORS, vgg.AUTHORS_NEW),
    "rgnn_vis": Kind(rgnn_vis.NAMES, rgnn_vis.RULES, ()),
    "resnet": Kind(
        [*resnet.TORCHVISION, *resnet.CAFFE2, *resnet.DETECTRON2],
        [*resnet.resnet_rules("backbone.", "backbone/"), resnet.CLASSIFIER],
        # Caffe2 files with statistics folded into scale and bias lack them.
        (
            _NOT_BACKBONE,
            r"(constants|batch_stats)/backbone/.*/norm/(mean|var)",
            resnet.OFFSETS,
        ),
    ),
    "swin": Kind(
        swin.MICROSOFT,
        [swin.CLASSIFIER, *swin.swin_rules("backbone.", "backbone/")],
        (_NOT_BACKBONE, swin.OUTPUT_NORMS),
    ),
    "vgg16": Kind((), vgg.TORCHVISION, vgg.NEW),
    # Names and rules depend on the transformer's form.
    "dino": Kind((), (), (_NOT_BACKBONE,)),
    **{kind: Kind((), (), (videomt.PROPAGATION,)) for kind in videomt.KINDS},
    "pmt": Kind((), (), (videomt.PROPAGATION, videomt.ENCODER)),
    # A YOLACT has no association.
    "yolact": Kind(yolact.NAMES, yolact.RULES, (rgnn_vis.ASSOCIATION,)),
}


def convert_file(
    path: str | Path, variables: Mapping, kind: str, *, warm_start: bool = False
) -> tuple[dict, ConvertReport]:
    """Returns the variables with the values of a published file.

    Args:
      path: see `read_source`.
      variables: nested, collections first, as `System.init` returns them.
      kind: a key of KINDS.
      warm_start: initialise IFR's decoder from similar Mask2Former layers; the paper
        initialises it at random.

    Returns:
      Variables of the same structure, and the report.

    Raises:
      ValueError: anything does not match; names the file.
    """
    source = read_source(path)
    try:
        return convert_source(source, variables, kind, warm_start=warm_start)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def convert_source(
    source: WeightsSource,
    variables: Mapping,
    kind: str,
    *,
    warm_start: bool = False,
    base: WeightsSource | None = None,
) -> tuple[dict, ConvertReport]:
    """Same as `convert_file`, for weights already read.

    Args:
      source, variables, kind, warm_start: see `convert_file`.
      base: see `convert_tensors`.
    """
    tensors = source.tensors
    try:
        found, report = convert_tensors(
            tensors,
            variables,
            kind,
            warm_start=warm_start,
            base=None if base is None else base.tensors,
        )
    except MisfitError as error:
        hint = _better_kind(tensors, kind, _shapes(flat_of(variables)))
        raise ValueError(f"{error}{hint}") from error
    outside = dict.fromkeys(source.outside, "outside the prefix")
    return found, report._replace(
        dropped=outside | report.dropped,
        notes=(*(f"taken: {note}" for note in source.notes), *report.notes),
    )


def convert_tensors(
    tensors: Mapping[str, np.ndarray],
    variables: Mapping,
    kind: str,
    *,
    warm_start: bool = False,
    base: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict, ConvertReport]:
    """Same as `convert_file`, for tensors by name.

    Args:
      tensors, variables, kind, warm_start: see `convert_file`.
      base: DINO weights, by the names of kind 'dino', to add to backbone `tensors` that
        are differences; None = `tensors` are complete.
    """
    flat = flat_of(variables)
    shapes = _shapes(flat)
    renames, rules, new = table_of(kind, shapes, warm_start=warm_start)
    notes = htc.notes_on(tensors) if kind == "htc" else ()
    if kind == "mask_track_rcnn":
        new = (*new, *mask_track_rcnn.check_names(tensors))
    if kind == "eomt":
        videomt.check_whole(tensors, based=base is not None)
    elif base is not None:
        raise ValueError(
            "--base: expected --kind eomt, the only one that is published as"
            f" differences, got {kind!r}"
        )
    renamed, folded = resnet.fold_stem_bias(rename(tensors, renames))
    if kind == "dino":
        renamed, folded = vit.fold_class_position(renamed)
    if kind == "dino" or kind in videomt.KINDS:
        vit.check_key_bias(renamed.tensors, shapes)
    report = convert(renamed.tensors, shapes, rules, new=new)
    report = report._replace(
        notes=(*notes, *folded, *resized(report.used, renamed.tensors, shapes)),
        used=_original(report.used, renamed.origins),
        dropped=_original(report.dropped, renamed.origins),
    )
    flat |= {
        path: np.asarray(value, flat[path].dtype)
        for path, value in report.params.items()
    }
    if base is not None:
        flat = _added(flat, base, variables)
        report = report._replace(
            notes=(*report.notes, "added to the weights of --base")
        )
    return _like(variables, flat), report


def _added(
    flat: Mapping, base: Mapping[str, np.ndarray], variables: Mapping
) -> dict[str, np.ndarray]:
    """Adds differences to their base weights, under the model's names."""
    try:
        found, _ = convert_tensors(base, variables, "dino")
    except ValueError as error:
        raise ValueError(f"--base: {error}") from error
    whole = flat_of(found)
    return {
        path: x + whole[path] if re.fullmatch(videomt.ENCODER, path) else x
        for path, x in flat.items()
    }


def table_of(
    kind: str, shapes: Mapping[str, tuple], *, warm_start: bool = False
) -> Kind:
    """Returns the table of a kind for one model.

    Args:
      kind: a key of KINDS.
      shapes: shapes of the model's variables, by path.
      warm_start: see `convert_file`.

    Raises:
      ValueError: unknown kind, or the model has no such decoder.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {sorted(KINDS)}, got {kind!r}")
    renames, rules, new = KINDS[kind]
    whole, frames = kind in WHOLE, has_frame_decoder(shapes)
    if warm_start and not (whole and frames):
        raise ValueError(
            "warm_start: expected the weights of a whole Mask2Former and a model with"
            f" IFR's decoder, got kind {kind!r} and {'this' if frames else 'another'}"
            " decoder"
        )
    if whole:
        decoder, fresh = _query_decoder(shapes, warm_start)
        rules, new = [*rules, *decoder], (*new, *fresh)
    if kind == "htc":
        rules = htc.rules_for(rules, shapes)
    if kind == "dino":
        renames, rules = vit.names_for(shapes), vit.backbone_rules("", shapes)
    if kind in videomt.KINDS:
        renames = videomt.names_for(kind, shapes)
        rules = videomt.rules_for(kind, shapes)
    if _TRAINED_SCALE in shapes and _FIXED_MEAN in shapes:
        rules = resnet.trained_affine(rules)
    if _RUNNING_MEAN in shapes:
        rules = resnet.running_statistics(rules)
    return Kind(renames, rules, new)


def _query_decoder(
    shapes: Mapping[str, tuple], warm_start: bool
) -> tuple[Sequence[NameRule], tuple[str, ...]]:
    """Returns rules and new paths for the decoder among the targets."""
    if not has_frame_decoder(shapes):
        return mask2former.CLIP_DECODER, ()
    if not warm_start:
        return mask2former.FRAME_DECODER, (mask2former.FRAME_DECODER_NEW,)
    rules = mask2former.FRAME_DECODER_WARM
    if not any(path.startswith("params/decoder/frame_0/ffn/") for path in shapes):
        rules = mask2former.without_frame_ffn(rules)
    return rules, mask2former.FRAME_DECODER_WARM_NEW


def _shapes(flat: Mapping) -> dict[str, tuple]:
    return {path: tuple(leaf.shape) for path, leaf in flat.items()}


def _better_kind(
    tensors: Mapping[str, np.ndarray], kind: str, shapes: Mapping[str, tuple]
) -> str:
    """Returns a hint at the kind that knows most names; empty if it is this one."""
    counts = {}
    for name in KINDS:
        renames, rules, _ = table_of(name, shapes)
        whole = name in WHOLE
        decoder = mask2former.CLIP_DECODER if whole else ()
        counts[name] = known(tensors, renames, [*rules, *decoder])
    best = max(counts, key=lambda name: counts[name])
    if counts[best] <= counts[kind]:
        return ""
    return (
        f"\n--kind {best} knows {counts[best]} of the {len(tensors)} names, {kind}"
        f" {counts[kind]}"
    )


def has_frame_decoder(shapes: Mapping[str, tuple]) -> bool:
    """Returns whether a model has IFR's decoder, judging by its variables' shapes."""
    return any(path.startswith("params/decoder/frame_0/") for path in shapes)


def _original(report: Mapping[str, object], origins: Mapping[str, tuple]) -> dict:
    return {old: value for name, value in report.items() for old in origins[name]}


def flat_of(tree: Mapping) -> dict:
    """Returns leaves by path, collection first."""
    flat: dict = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{rest}": leaf for rest, leaf in flat_of(value).items()}
        else:
            flat[name] = value
    return flat


def _like(tree: Mapping, flat: Mapping, prefix: str = "") -> dict:
    """Nests the leaves of `flat` in the structure of `tree`."""
    return {
        name: _like(value, flat, f"{prefix}{name}/")
        if isinstance(value, Mapping)
        else flat[f"{prefix}{name}"]
        for name, value in tree.items()
    }

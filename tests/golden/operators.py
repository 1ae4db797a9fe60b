"""Our operators on the stored case of elementary ones; more in `layers.py`."""

import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.compiled import compiled
from tests.golden.cases import Case, Results, instances, nchw, nhwc
from tests.golden.layers import attention_results, layer_results, resampling_results
from vis_jax.losses.classification import sigmoid_focal
from vis_jax.losses.lovasz import lovasz_hinge, lovasz_softmax
from vis_jax.losses.mask import pairwise_bce, pairwise_dice, point_bce, point_dice
from vis_jax.ops.assignment import hungarian
from vis_jax.ops.bilinear import sample_channels
from vis_jax.ops.boxes import box_area, box_iou, generalized_box_iou
from vis_jax.ops.deform_attn import deform_attn
from vis_jax.ops.deform_conv import deform_conv
from vis_jax.ops.nms import nms_by_label
from vis_jax.ops.roi_align import (
    ALIGNED,
    UNALIGNED,
    Adaptive,
    pyramid_roi_align,
    roi_levels,
)
from vis_jax.ops.sampling import uncertain_points


def compare(case: Case) -> Results:
    """Our arrays by stored name."""
    return functools.reduce(lambda all_, part: all_ | part(case), _PARTS, {})


def _deform_attn(case: Case) -> Results:
    results = {}
    inputs = ("value", "sampling_locations", "attention_weights")
    for name in instances(case, "ms_deform_attn", "output"):
        number = int(name.split("/")[1])
        settings = case.manifest["settings"]["ms_deform_attn"][number]
        shapes = tuple(tuple(shape) for shape in settings["shapes"])

        def run(*args, shapes=shapes):
            out = jax.vmap(lambda *one: deform_attn(*one, shapes=shapes))(*args)
            return jnp.sum(out**2), out

        arrays = [case.arrays[f"{name}/{x}"] for x in inputs]
        both = compiled(jax.value_and_grad(run, (0, 1, 2), has_aux=True))
        (_, out), gradients = both(*arrays)
        results[f"{name}/output"] = out.reshape(*out.shape[:2], -1)
        for x, gradient in zip(inputs, gradients, strict=True):
            results[f"{name}/grad_sum_sq/{x}"] = gradient
    return results


def _roi_align(case: Case) -> Results:
    rois = case.arrays["roi_align/rois"]
    images, results = nhwc(case.arrays["roi_align/input"]), {}
    longest = float((rois[:, 3:] - rois[:, 1:3]).max())
    for stored in case.manifest["settings"]["roi_align"]:
        scale, size = stored["spatial_scale"], tuple(stored["output_size"])
        most = int(np.ceil(max(longest, 1 / scale) * scale / min(size)))
        read = functools.partial(
            pyramid_roi_align,
            scales=(scale,),
            size=size,
            samples=stored["sampling_ratio"] or Adaptive(most),
            convention=ALIGNED if stored["aligned"] else UNALIGNED,
        )
        level = np.zeros(len(rois), np.int32)

        def every(images, boxes, level, read=read):
            return jax.vmap(lambda image: read([image], boxes, level))(images)

        ours = compiled(every)(images, rois[:, 1:], level)
        ours = ours[rois[:, 0].astype(int), np.arange(len(rois))]
        results[f"roi_align/{stored['index']}/output"] = nchw(ours)
    return results


def _pyramid(case: Case) -> Results:
    name = "multiscale_roi_align"
    boxes = case.arrays[f"{name}/boxes"]
    count = sum(x.startswith(f"{name}/feature_") for x in case.arrays)
    find = functools.partial(roi_levels, levels=count, finest=56.0)
    levels = compiled(find)(boxes)
    read = functools.partial(
        pyramid_roi_align,
        scales=tuple(1 / 2 ** (level + 2) for level in range(count)),
        size=case.arrays[f"{name}/output"].shape[2:],
        samples=2,
        convention=UNALIGNED,
    )
    features = [nhwc(case.arrays[f"{name}/feature_{i}"])[0] for i in range(count)]
    return {
        f"{name}/levels": levels,
        f"{name}/levels_detectron2": levels,
        f"{name}/output": nchw(compiled(read)(features, boxes, levels)),
    }


def _boxes(case: Case) -> Results:
    boxes, scores, labels = (
        case.arrays[f"nms/{x}"] for x in ("boxes", "scores", "labels")
    )
    keep = compiled(nms_by_label, static_argnames=("iou_threshold", "size"))
    results = {}
    for name in case.arrays:
        kind, _, threshold = name.partition("/keep_")
        if not threshold:
            continue
        classes = labels if kind == "batched_nms" else np.zeros_like(labels)
        kept = keep(
            boxes,
            scores,
            classes.astype(np.int32),
            valid=np.ones(len(boxes), bool),
            iou_threshold=float(threshold),
            size=len(boxes),
        )
        results[name] = kept.chosen[kept.valid]
    iou = compiled(box_iou)(boxes, boxes)
    area = compiled(box_area)(boxes)
    # Deviation: 0 and not NaN for two empty boxes.
    iou = np.where((area[:, None] == 0) & (area[None] == 0), np.nan, iou)
    # IoU of the first boxes with the following ones.
    count = len(case.arrays["generalized_box_iou/output"])
    pair = boxes[:count], boxes[count : 2 * count]
    return results | {
        "box_iou/output": iou,
        "generalized_box_iou/output": compiled(generalized_box_iou)(*pair),
    }


def deform_conv_results(case: Case) -> Results:
    """Deformable convolutions."""
    results = {}
    for name in instances(case, "deform_conv2d", "output"):
        stored = case.manifest["settings"]["deform_conv2d"][int(name.split("/")[1])]
        weight, groups = case.arrays[f"{name}/weight"], stored["og"]
        taps = weight.shape[2:]

        def by_tap(array, *last, groups=groups, taps=taps):
            array = nhwc(array)
            return array.reshape(*array.shape[:3], groups, *taps, *last)

        offsets = by_tap(case.arrays[f"{name}/offset"], 2)
        modulation = np.ones(offsets.shape[:-1], np.float32)
        if stored["mask"]:
            modulation = by_tap(case.arrays[f"{name}/mask"])

        def run(x, offsets, modulation, weight=weight, stored=stored):
            return deform_conv(
                x,
                jnp.asarray(weight.transpose(2, 3, 1, 0)),
                offsets,
                modulation=modulation if stored["mask"] else None,
                stride=stored["stride"],
                padding=stored["pad"],
                dilation=stored["dil"],
            )

        images = nhwc(case.arrays[f"{name}/input"])
        ours = compiled(jax.vmap(run))(images, offsets, modulation)
        results[f"{name}/output"] = nchw(ours) + case.arrays[f"{name}/bias"].reshape(
            1, -1, 1, 1
        )
    return results


def lovasz_results(case: Case) -> Results:
    """Losses and their gradients."""
    logits, labels = (case.arrays[f"lovasz_hinge/{x}"] for x in ("logits", "labels"))

    def hinge(logits, images: int):
        flat = (x.reshape(images, -1) for x in (logits, jnp.asarray(labels > 0)))
        every = jnp.ones((images, labels.size // images), bool)
        return jax.vmap(lovasz_hinge)(*flat, every).mean()

    results = {}
    for per_image in (True, False):
        images = len(labels) if per_image else 1
        both = compiled(jax.value_and_grad(functools.partial(hinge, images=images)))
        loss, gradient = both(logits)
        results[f"lovasz_hinge/loss_per_image_{per_image}"] = loss
        results[f"lovasz_hinge/grad_per_image_{per_image}"] = gradient
    return results | _lovasz_softmax(case)


def _lovasz_softmax(case: Case) -> Results:
    name = "lovasz_softmax"
    logits, labels = (case.arrays[f"{name}/{x}"] for x in ("logits", "labels"))
    labels = labels.astype(np.int32)
    classes = logits.shape[1]

    def softmax(logits, images: int, absent: bool):
        probs = jnp.moveaxis(jax.nn.softmax(logits, axis=1), 1, -1)
        probs = probs.reshape(images, -1, classes)
        truth = jnp.asarray(labels.reshape(images, -1))
        losses = jax.vmap(lovasz_softmax)(probs, truth, truth < classes)
        counts = (truth[..., None] == jnp.arange(classes)[None, None]).any(axis=1)
        counts = jnp.ones_like(counts) if absent else counts
        of_image = jnp.where(counts, losses, 0.0).sum(axis=1)
        of_image = of_image / counts.sum(axis=1).astype(jnp.float32)
        return of_image.mean()

    results = {}
    for per_image in (True, False):
        for kind in ("present", "all"):
            images = len(labels) if per_image else 1
            loss_of = functools.partial(softmax, images=images, absent=kind == "all")
            loss, gradient = compiled(jax.value_and_grad(loss_of))(logits)
            ending = f"{kind}_per_image_{per_image}"
            results[f"{name}/loss_{ending}"] = loss
            results[f"{name}/grad_logits_{ending}"] = gradient
    return results


def _mask_losses(case: Case) -> Results:
    logits, targets, others = (
        case.arrays[f"mask_losses/{x}"] for x in ("logits", "targets", "targets_match")
    )
    note = case.manifest["arrays"]["mask_losses/dice_loss"].get("note", "")
    masks = re.search(r"num_masks = (\d+)", note)
    count = int(masks[1]) if masks else len(logits)
    # One class: label 0 is inside and 1 is none.
    labels = (targets <= 0.5).astype(np.int32)
    # Without the weights of the classes; no model has it so.
    unweighted = functools.partial(optax.losses.sigmoid_focal_loss, gamma=2.0)
    return {
        "mask_losses/dice_loss": compiled(point_dice)(logits, targets).sum() / count,
        "mask_losses/sigmoid_ce_loss": compiled(point_bce)(logits, targets).sum()
        / count,
        "mask_losses/batch_dice_cost": compiled(pairwise_dice)(logits, others),
        "mask_losses/batch_sigmoid_ce_cost": compiled(pairwise_bce)(logits, others),
        "mask_losses/sigmoid_focal_loss_alpha0.25_gamma2": compiled(sigmoid_focal)(
            logits[..., None], labels
        ),
        "mask_losses/sigmoid_focal_loss_alpha-1_gamma2": compiled(unweighted)(
            logits, targets
        ),
    }


def _points(case: Case) -> Results:
    logits, targets, points = (
        case.arrays[f"point_losses/{x}"]
        for x in ("mask_logits", "mask_targets", "points")
    )
    read = compiled(jax.vmap(sample_channels))
    logits_read, targets_read = (
        np.moveaxis(read(nhwc(x), points), -1, 1) for x in (logits, targets)
    )
    pairs = (logits_read[:, 0], targets_read[:, 0])
    candidates, rest = (
        case.arrays[f"uncertain_points/rand_{x}"] for x in ("oversampled", "rest")
    )
    choose = compiled(jax.vmap(uncertain_points))
    return {
        "point_losses/sampled_logits": logits_read,
        "point_losses/sampled_targets": targets_read,
        "point_losses/loss_mask": compiled(point_bce)(*pairs).mean(),
        "point_losses/loss_dice": compiled(point_dice)(*pairs).mean(),
        "uncertain_points/coords": choose(logits[:, 0], candidates, rest),
    }


def _hungarian(case: Case) -> Results:
    results = {}
    for name in instances(case, "hungarian", "cost"):
        cost = case.arrays[f"{name}/cost"].astype(np.float32)
        tall = cost if cost.shape[0] >= cost.shape[1] else cost.T
        match = compiled(hungarian)(tall, np.ones(tall.shape[1], bool))
        pairs = [match, np.arange(tall.shape[1])]
        rows, columns = pairs if tall is cost else pairs[::-1]
        order = np.argsort(rows)
        rows, columns = rows[order], columns[order]
        total = case.arrays[f"{name}/cost"][rows, columns].sum()
        if np.isclose(total, case.arrays[f"{name}/total"], rtol=1e-6):
            # Another assignment of the same total is as right as the stored one.
            rows, columns = (case.arrays[f"{name}/{x}"] for x in ("rows", "cols"))
        results |= {
            f"{name}/rows": rows,
            f"{name}/cols": columns,
            f"{name}/total": total,
        }
    return results


_PARTS: tuple[Callable[[Case], Results], ...] = (
    _deform_attn,
    _roi_align,
    _pyramid,
    _boxes,
    deform_conv_results,
    resampling_results,
    lovasz_results,
    _mask_losses,
    _points,
    _hungarian,
    layer_results,
    attention_results,
)

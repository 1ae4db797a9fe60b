"""Losses of our RGNNVIS and their gradients on the stored case of the released code."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tests.golden.cases import Case, Results
from tests.golden.gradients import official_gradients
from tests.golden.rgnn_vis import converted, images_of_case, model_of_case, see
from vis_jax.association.track_truth import primary_objects
from vis_jax.ops.boxes import box_iou
from vis_jax.structures import Batch
from vis_jax.systems.rgnn_loss import LossSettings, clip_sums

_LOSS = LossSettings(
    duplicates=True, birth_frame=False, normalised=False, whole_clip=True
)
_TERMS = {
    "trkdetass": ("match", 4.0),
    "newass": ("start", 1.0),
    "trkcls": ("score", 1.0),
    "trkseg": ("segmentation", 1.0),
}


def clip_of_case(case: Case) -> Batch:
    """The truth of the frames, without an axis of clips."""
    boxes, labels, numbers = (
        case.arrays[f"anno/{name}"][0] for name in ("odannos", "lbannos", "isannos")
    )
    present = case.arrays["anno/active"][0][:, 1:] == 1
    count, (frames, *canvas) = present.shape[1], numbers.shape
    masks = numbers[None] == np.arange(1, count + 1).reshape(-1, 1, 1, 1)
    return Batch(
        images=np.zeros((frames, *canvas, 3), np.uint8),
        frame_valid=np.ones(frames, bool),
        sizes=np.array(canvas, np.int32),
        masks=masks,
        boxes=np.swapaxes(boxes[:, 1:], 0, 1),
        present=present.T,
        labels=labels[1:].astype(np.int32) - 1,
        track_ids=np.arange(1, count + 1, dtype=np.int32),
        instance_valid=present.any(axis=0),
    )


def compare(case: Case) -> Results:
    """The losses and the gradients of their sum."""
    model = model_of_case(case)
    variables = converted(case, model)
    sight = see(model, variables, images_of_case(case)).sight
    clip = jax.tree.map(jnp.asarray, clip_of_case(case))
    threshold = case.manifest["settings"]["novel_acceptance_threshold"]
    probability = float(1.0 / (1.0 + np.exp(-threshold)))
    settings = dataclasses.replace(
        _LOSS, match_threshold=probability, start_threshold=probability
    )

    def total(params: dict):
        sums = clip_sums(model, settings, variables | {"params": params}, sight, clip)
        frames = len(clip.frame_valid)
        terms = {
            name: weight * getattr(sums, ours) / (1 if ours == "score" else frames)
            for name, (ours, weight) in _TERMS.items()
        }
        return sum(terms.values()), terms

    both = jax.jit(jax.value_and_grad(total, has_aux=True))
    (value, terms), gradient = both(variables["params"])
    boxes = jnp.swapaxes(clip.boxes, 0, 1)
    objects = primary_objects(
        sight.boxes,
        sight.valid,
        boxes,
        present=clip.present.T,
        threshold=settings.iou,
    )
    overlaps = jax.vmap(box_iou)(sight.boxes, boxes)
    overlaps = jnp.where(clip.present.T[:, None], overlaps, 0.0)
    best = jnp.where(
        overlaps.max(axis=2) > settings.iou, overlaps.argmax(axis=2) + 1, 0
    )
    return {
        **{f"loss/{name}": x for name, x in terms.items()},
        "loss/total": value,
        "loss/primary_detection_anno_ids": np.pad(objects, ((0, 0), (1, 0)))[None],
        "loss/detection_anno_ids": np.pad(best, ((0, 0), (1, 0)))[None],
        **official_gradients(case, variables, {"params": gradient}, "rgnn_vis"),
    }

"""Losses and gradients of our IAI on the stored case of the released code.

All of the stored loss is in evaluation mode: batch norm has its statistics, and no path
is dropped.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from tests.golden.cases import Case, CaseError, Results, nhwc
from tests.golden.gradients import official_gradients
from tests.golden.iai import converted, model_of, settings_of_case, shapes_of
from vis_jax.structures import Batch
from vis_jax.systems.iai_loss import condinst_loss

_NAMES = {
    "box_class": "loss_cls", "id": "loss_id", "box": "loss_bbox",
    "centre": "loss_centerness", "mask": "loss_mask",
}  # fmt: skip


def batch_of_case(case: Case) -> tuple[np.ndarray, Batch]:
    """Normalised images [B, T, ..] and their truth; the case goes frame by frame."""
    images = nhwc(case.arrays["train/image"])
    count, clips = len(images), _clips(case)
    frames, (height, width) = count // clips, images.shape[1:3]
    ids = np.concatenate([case.arrays[f"train/{i}/ids"] for i in range(count)])
    most = 1 + ids.max(initial=0)
    masks = np.zeros((clips, most, frames, height, width), bool)
    boxes = np.zeros((clips, most, frames, 4), np.float32)
    present = np.zeros((clips, most, frames), bool)
    labels = np.zeros((clips, most), np.int32)
    for index in range(count):
        frame, clip = divmod(index, clips)
        truth = {
            name: case.arrays[f"train/{index}/{name}"]
            for name in ("masks", "boxes", "labels", "ids")
        }
        for row, number in enumerate(truth["ids"].tolist()):
            masks[clip, number, frame] = truth["masks"][row] > 0
            boxes[clip, number, frame] = truth["boxes"][row]
            present[clip, number, frame] = True
            labels[clip, number] = truth["labels"][row]
    valid = present.any(axis=2)
    images = images.reshape(frames, clips, *images.shape[1:]).swapaxes(0, 1)
    return images, Batch(
        images=np.zeros(images.shape, np.uint8),
        frame_valid=np.ones((clips, frames), bool),
        sizes=np.tile(np.int32([height, width]), (clips, 1)),
        masks=masks,
        boxes=boxes,
        present=present,
        labels=labels,
        track_ids=np.where(valid, np.arange(1, most + 1), 0).astype(np.int32),
        instance_valid=valid,
    )


def _clips(case: Case) -> int:
    """The number of clips, which only the notes state: '5 frames x batch 2'."""
    found = re.search(r"frames x batch (\d+)", " ".join(case.manifest["notes"]))
    if found is None:
        raise CaseError(f"{case.path}: notes: expected 'N frames x batch N', got none")
    return int(found[1])


def compare(case: Case) -> Results:
    """The stored losses and gradients as we compute them."""
    settings = settings_of_case(case)
    variables, model = converted(case, settings), model_of(settings)
    images, batch = batch_of_case(case)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(params, others, images, batch):
        return condinst_loss(
            model, settings.loss, settings.model.ids, others | {"params": params},
            images, batch, jax.random.key(0), train=False,
        )  # fmt: skip

    others = {name: x for name, x in variables.items() if name != "params"}
    (_, aux), gradients = jax.device_get(
        jax.jit(run)(variables["params"], others, jnp.asarray(images), batch)
    )
    results = {f"loss/{_NAMES[name]}": x for name, x in aux.terms.items()}
    return results | official_gradients(
        case, shapes_of(settings), {"params": gradients}, "iai"
    )

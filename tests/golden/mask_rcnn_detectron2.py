"""Our Mask R-CNN on the stored case of detectron2."""

import numpy as np

from tests.compiled import compiled
from tests.golden.cases import Case, nchw
from tests.golden.mask_rcnn import (
    canvas_of,
    converted,
    given_regions,
    images_of,
    model_of,
    rules_of,
    run_given,
    shared_results,
    valid_rows,
)
from vis_jax.backbones.resnet import ResNet
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.conventions import DETECTRON2
from vis_jax.detectors.mask_rcnn import BOX_SIDE, MaskRCNN
from vis_jax.ops.masks import paste_masks
from vis_jax.ops.roi_align import Adaptive

KIND = "mask_rcnn_detectron2"
_MEAN = (103.53, 116.28, 123.675)  # blue, green, red
_STRIDES = tuple((2**power, 2**power) for power in range(2, 7))

_paste = compiled(paste_masks, static_argnames="size")


def model_of_case(case: Case, canvas: tuple[int, int]) -> MaskRCNN:
    """The model of the manifest's settings.

    It reads as many points as the longest region can have on the finest level.
    """
    settings = case.manifest["settings"]
    most = -(-max(canvas) // (4 * BOX_SIDE))
    rules = rules_of(
        DETECTRON2._replace(samples=Adaptive(most)),
        _STRIDES,
        before=settings["rpn_pre_nms_topk_test"],
        proposals=settings["rpn_post_nms_topk_test"],
        detections=DetectRule(
            score_threshold=settings["score_thresh_test"],
            iou_threshold=settings["nms_thresh_test"],
            least_side=0.0,
            size=settings["detections_per_image"],
        ),
    )
    backbone = ResNet("50", style="caffe")
    return model_of(backbone, settings["num_classes"], rules, canvas)


def inputs_of_case(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Images [B, H, W, 3] less the mean colour, and their sizes."""
    stored = images_of(case)
    sizes = np.array([image.shape[:2] for image in stored], np.int32)
    images = np.zeros((len(stored), *canvas_of(sizes), 3), np.float32)
    for i, image in enumerate(stored):
        images[i, : sizes[i, 0], : sizes[i, 1]] = image - np.array(_MEAN, np.float32)
    return images, sizes


def compare(case: Case) -> dict[str, np.ndarray]:
    """Stored arrays of inference as we compute them."""
    images, sizes = inputs_of_case(case)
    model = model_of_case(case, images.shape[1:3])
    variables = converted(case, model, KIND)
    given = given_regions(case, len(images))
    out = run_given(model, variables, images, sizes, given)
    deltas = out["given"].deltas
    levels = tuple(f"p{level}" for level in range(2, 7))
    results = shared_results(out, levels) | {
        "given_rois/class_logits": out["given"].class_logits,
        "given_rois/box_regression": deltas.reshape(len(deltas), -1),
        "given_rois/mask_logits": nchw(out["given_masks"]),
    }
    for i in range(len(images)):
        found, proposals = (valid_rows(out[name], i) for name in ("found", "proposals"))
        probs = out["found_masks"][i][np.asarray(out["found"].valid[i])]
        size = (int(sizes[i, 0]), int(sizes[i, 1]))
        pasted = _paste(probs, found.boxes, size=size) >= 0.5
        results |= {
            f"proposals/{i}/boxes": proposals.boxes,
            f"proposals/{i}/logits": proposals.logits,
            f"detections/{i}/boxes": found.boxes,
            f"detections/{i}/scores": found.scores,
            f"detections/{i}/labels": found.labels,
            f"detections/{i}/masks_packed": np.packbits(pasted),
            f"detections/{i}/mask_area": pasted.sum(axis=(1, 2)),
        }
    return results

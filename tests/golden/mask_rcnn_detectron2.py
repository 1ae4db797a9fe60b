"""Our Mask R-CNN on the stored case of detectron2.

RoIAlign of detectron2 has as many points in a cell as the region has pixels there, ours
a fixed number; for the heads the features of the given regions are made here, as
theirs are.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from tests.golden.cases import Case, nchw, nhwc
from tests.golden.conventions import UPPER, paste_masks
from tests.golden.mask_rcnn import CANVAS, model_of, shapes_of
from vis_jax.backbones.resnet import ResNet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.mask_head import of_label
from vis_jax.detectors.mask_rcnn import MaskRCNN, Rules
from vis_jax.detectors.rpn import ProposalRule
from vis_jax.ops.anchors import AnchorGrid
from vis_jax.ops.box_coder import ROI, UNIT, BoxCoder
from vis_jax.ops.masks import _weights
from vis_jax.ops.roi_align import ALIGNED, roi_levels

_MEAN = (103.53, 116.28, 123.675)  # blue, green, red
STRIDES = tuple((2**power, 2**power) for power in range(2, 7))

_paste = compiled(paste_masks, static_argnames="size")


def converted(case: Case) -> tuple[MaskRCNN, dict]:
    """The model of a case with its weights, by the public converter."""
    settings = case.manifest["settings"]
    rules = Rules(
        anchors=AnchorGrid(
            (32.0, 64.0, 128.0, 256.0, 512.0), (0.5, 1.0, 2.0), STRIDES, 0.0, False
        ),
        proposal_coder=BoxCoder(UNIT, UPPER),
        proposals=ProposalRule(
            before=settings["rpn_pre_nms_topk_test"],
            size=settings["rpn_post_nms_topk_test"],
            iou_threshold=0.7,
            least_side=1e-6,
        ),
        roi_convention=ALIGNED,
        roi_coder=BoxCoder(ROI, UPPER),
        detections=DetectRule(
            score_threshold=settings["score_thresh_test"],
            iou_threshold=settings["nms_thresh_test"],
            least_side=0.0,
            size=settings["detections_per_image"],
        ),
    )
    model = model_of(ResNet("50", style="caffe"), settings["num_classes"], rules)
    variables, report = convert_tensors(
        case.weights(), shapes_of(model), "mask_rcnn_detectron2"
    )
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return model, variables


def inputs_of_case(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Images [2, H, W, 3] less the mean colour, and their sizes."""
    images, sizes = np.zeros((2, *CANVAS, 3), np.float32), np.zeros((2, 2), np.int32)
    for i in range(2):
        image = nhwc(case.arrays[f"image/{i}"])
        sizes[i] = image.shape[:2]
        images[i, : sizes[i, 0], : sizes[i, 1]] = image - np.array(_MEAN, np.float32)
    return images, sizes


def pool(features, boxes, side: int):
    """Features of regions [R, side, side, C] with a point for every pixel."""
    levels = roi_levels(boxes, levels=4, finest=56.0)
    total = jnp.zeros((len(boxes), side, side, features[0].shape[-1]))
    for level, x in enumerate(features[:4]):
        scaled = boxes / 4 / 2**level - ALIGNED.shift
        rows = _weights(scaled[:, 1], scaled[:, 3], x.shape[0], side, ALIGNED)
        columns = _weights(scaled[:, 0], scaled[:, 2], x.shape[1], side, ALIGNED)
        pooled = jnp.einsum("rih,hwc,rjw->rijc", rows, x, columns)
        total += jnp.where((levels == level).reshape(-1, 1, 1, 1), pooled, 0.0)
    return total


@functools.partial(jax.jit, static_argnums=0)
def _run(model: MaskRCNN, variables, images, sizes, given, found, labels):
    def run(self):
        features = self.features(images)
        rpn, proposals = self.propose(features, sizes)
        pooled = jax.vmap(functools.partial(pool, side=7))(features, given)
        pool_masks = jax.vmap(functools.partial(pool, side=14))
        for_masks = pool_masks(features, given).reshape(-1, 14, 14, 256)
        for_found = pool_masks(features, found).reshape(-1, 14, 14, 256)
        logits = of_label(self.mask_head(for_found), labels.ravel())
        return dict(
            features=features,
            rpn=rpn,
            proposals=proposals,
            pooled=pooled,
            given=self.box_head(pooled),
            masks=self.mask_head(for_masks),
            probs=jax.nn.sigmoid(logits).reshape(*labels.shape, 28, 28),
        )

    return model.apply(variables, method=run)


def compare(case: Case) -> dict[str, np.ndarray]:
    """Stored arrays up to the proposals, and of the heads on given regions.

    Also the masks of the stored detections.
    """
    model, variables = converted(case)
    given = np.stack([case.arrays[f"given_rois/boxes/{i}"] for i in range(2)])
    images, sizes = inputs_of_case(case)
    found, labels = (
        np.stack([case.arrays[f"detections/{i}/{name}"] for i in range(2)])
        for name in ("boxes", "labels")
    )
    labels = labels.astype(np.int32)
    run = jax.device_get(_run(model, variables, images, sizes, given, found, labels))
    out = run["given"]
    results = {
        "given_rois/box_pooled": nchw(run["pooled"].reshape(12, 7, 7, 256)),
        "given_rois/class_logits": out.class_logits.reshape(12, -1),
        "given_rois/box_regression": out.deltas.reshape(12, -1),
        "given_rois/mask_logits": nchw(run["masks"]),
    }
    start = 0
    for level, x in enumerate(run["features"]):
        results[f"fpn/p{level + 2}"] = nchw(x)
        end = start + x.shape[1] * x.shape[2] * 3
        for name, values in zip(("objectness", "deltas"), run["rpn"], strict=True):
            part = values[:, start:end].reshape(2, *x.shape[1:3], -1)
            results[f"rpn/{name}/{level}"] = nchw(part)
        start = end
    for i in range(2):
        results[f"proposals/{i}/boxes"] = run["proposals"].boxes[i]
        results[f"proposals/{i}/logits"] = run["proposals"].logits[i]
        size = (int(sizes[i, 0]), int(sizes[i, 1]))
        masks = _paste(run["probs"][i], found[i], size=size) >= 0.5
        results[f"detections/{i}/masks_packed"] = np.packbits(masks)
        results[f"detections/{i}/mask_area"] = masks.sum(axis=(1, 2))
    return results

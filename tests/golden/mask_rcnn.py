"""Our Mask R-CNN on the stored case of torchvision, array by array."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from tests.golden.cases import Case, nchw, nhwc
from tests.golden.conventions import UNALIGNED, UPPER
from vis_jax.backbones.fpn import FPN
from vis_jax.backbones.resnet import ResNet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.box_head import BoxHead, DetectRule
from vis_jax.detectors.mask_head import MaskHead
from vis_jax.detectors.mask_rcnn import MaskRCNN, Rules
from vis_jax.detectors.rpn import RPN, ProposalRule
from vis_jax.ops.anchors import AnchorGrid
from vis_jax.ops.bilinear import resize
from vis_jax.ops.box_coder import ROI, UNIT, BoxCoder

CANVAS = (96, 160)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# torchvision divides the canvas by the size of the map: the last stride is not 64 where
# the canvas is no multiple of it.
STRIDES = ((4, 4), (8, 8), (16, 16), (32, 32), (48, 53))

_resize = compiled(resize, static_argnums=1)


def model_of_case(case: Case) -> MaskRCNN:
    """The model of the manifest's settings."""
    settings = case.manifest["settings"]
    classes = settings["num_classes"] - 1  # theirs counts the background
    rules = Rules(
        anchors=AnchorGrid(
            (32.0, 64.0, 128.0, 256.0, 512.0), (0.5, 1.0, 2.0), STRIDES, 0.0, True
        ),
        proposal_coder=BoxCoder(UNIT, UPPER),
        proposals=ProposalRule(
            before=settings["rpn_pre_nms_top_n_test"],
            size=settings["rpn_post_nms_top_n_test"],
            iou_threshold=0.7,
            least_side=1e-3,
        ),
        roi_convention=UNALIGNED,
        roi_coder=BoxCoder(ROI, UPPER),
        detections=DetectRule(
            score_threshold=settings["box_score_thresh"],
            iou_threshold=settings["box_nms_thresh"],
            least_side=1e-2,
            size=settings["box_detections_per_img"],
        ),
    )
    return model_of(ResNet("50"), classes, rules)


def model_of(backbone: ResNet, classes: int, rules: Rules) -> MaskRCNN:
    """Mask R-CNN of the usual sizes."""
    return MaskRCNN(
        backbone,
        FPN(256),
        RPN(256, ratios=3),
        BoxHead(classes, width=1024),
        MaskHead(classes, dim=256, convs=4),
        rules,
    )


@functools.cache
def shapes_of(model: MaskRCNN) -> dict:
    """Shapes of the model's variables."""
    images = jax.ShapeDtypeStruct((1, *CANVAS, 3), jnp.float32)
    sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), images, sizes)


def converted(case: Case) -> tuple[MaskRCNN, dict]:
    """The model of a case with its weights, by the public converter."""
    model = model_of_case(case)
    variables, report = convert_tensors(
        case.weights(), shapes_of(model), "mask_rcnn_torchvision"
    )
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return model, variables


def inputs_of_case(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Images [2, H, W, 3], resized and normalised, and their sizes."""
    sizes = np.array(case.manifest["settings"]["transformed_sizes"], np.int32)
    images = np.zeros((2, *CANVAS, 3), np.float32)
    for index, (height, width) in enumerate(sizes):
        image = (nhwc(case.arrays[f"image/{index}"]) - _MEAN) / _STD
        image = _resize(image.astype(np.float32), (int(height), int(width)))
        images[index, :height, :width] = image
    return images, sizes


@functools.partial(jax.jit, static_argnums=0)
def _run(model: MaskRCNN, variables, images, sizes, given):
    def run(self):
        features = self.features(images)
        rpn, proposals = self.propose(features, sizes)
        return dict(
            features=features,
            rpn=rpn,
            anchors=self.anchors(features),
            proposals=proposals,
            proposed=self.classify(features, proposals.boxes),
            found=self.detect(features, proposals, sizes),
            pooled=self.pool(features, given, 7),
            given=self.classify(features, given),
            given_masks=self.masks(features, given),
        )

    return model.apply(variables, method=run)


def compare(case: Case) -> dict[str, np.ndarray]:
    """Stored arrays of inference as we compute them."""
    model, variables = converted(case)
    images, sizes = inputs_of_case(case)
    given = np.stack([case.arrays[f"given_rois/boxes/{i}"] for i in range(2)])
    run = jax.device_get(_run(model, variables, images, sizes, given))
    results = {
        "transformed/tensors": nchw(images),
        "rpn/anchors": run["anchors"],
        "box_head/class_logits": class_logits(run["proposed"]),
        "given_rois/box_pooled": nchw(run["pooled"].reshape(12, 7, 7, 256)),
        "given_rois/class_logits": class_logits(run["given"]),
    }
    start = 0
    for level, x in enumerate(run["features"]):
        results[f"fpn/{'pool' if level == 4 else level}"] = nchw(x)
        end = start + x.shape[1] * x.shape[2] * 3
        for name, values in zip(("objectness", "deltas"), run["rpn"], strict=True):
            part = values[:, start:end].reshape(2, *x.shape[1:3], -1)
            results[f"rpn/{name}/{level}"] = nchw(part)
        start = end
    for i in range(2):
        scale = case.arrays[f"image/{i}"].shape[1:][::-1] / sizes[i, ::-1]
        found = jax.tree.map(lambda x, i=i: np.asarray(x[i]), run["found"])
        results |= {
            f"proposals/{i}": run["proposals"].boxes[i],
            f"detections/{i}/boxes": found.boxes * np.tile(scale, 2),
            f"detections/{i}/labels": found.labels + 1,
            f"detections/{i}/scores": found.scores,
        }
    return results | _without_background(case, run)


def class_logits(out) -> np.ndarray:
    """Rows of all images with the background first."""
    logits = np.asarray(out.class_logits)
    return np.roll(logits.reshape(-1, logits.shape[-1]), 1, axis=1)


def _without_background(case: Case, run: dict) -> dict[str, np.ndarray]:
    """Boxes and masks; those of the background, which are not computed, as stored."""
    results = {}
    for name, out in (("given_rois", run["given"]), ("box_head", run["proposed"])):
        deltas = np.asarray(out.deltas)
        deltas = deltas.reshape(-1, deltas.shape[2] * 4)
        full = np.zeros((len(deltas), deltas.shape[1] + 4), np.float32)
        full[:, 4:] = deltas
        stored = case.arrays[f"{name}/box_regression"]
        full[:: len(full) // len(stored), :4] = stored[:, :4]
        results[f"{name}/box_regression"] = full
    masks = np.asarray(run["given_masks"])
    masks = nchw(masks.reshape(-1, *masks.shape[2:]))
    stored = case.arrays["given_rois/mask_logits"][:, :1]
    results["given_rois/mask_logits"] = np.concatenate([stored, masks], axis=1)
    return results

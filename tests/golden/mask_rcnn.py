"""Our Mask R-CNN on the stored cases of torchvision and detectron2.

What both have in common, and the arrays of torchvision. Every size comes from the case.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from tests.golden.cases import Case, nchw, nhwc
from vis_jax.backbones.fpn import FPN
from vis_jax.backbones.resnet import ResNet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.box_head import BoxHead, DetectRule
from vis_jax.detectors.conventions import TORCHVISION, Conventions
from vis_jax.detectors.mask_head import MaskHead, of_label
from vis_jax.detectors.mask_rcnn import BOX_SIDE, DetectionRules, MaskRCNN
from vis_jax.detectors.rpn import RPN, ProposalRule
from vis_jax.ops.anchors import AnchorGrid
from vis_jax.ops.bilinear import resize
from vis_jax.ops.box_coder import ROI, UNIT, BoxCoder
from vis_jax.ops.masks import paste_in_whole_pixels

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RATIOS = (0.5, 1.0, 2.0)
_SIDES = (32.0, 64.0, 128.0, 256.0, 512.0)

_resize = compiled(resize, static_argnums=1)
_paste = compiled(paste_in_whole_pixels, static_argnames="size")


def images_of(case: Case) -> list[np.ndarray]:
    """The stored images, [H, W, 3] each."""
    count = sum(name.startswith("image/") for name in case.arrays)
    return [nhwc(case.arrays[f"image/{i}"]) for i in range(count)]


def canvas_of(sizes: np.ndarray) -> tuple[int, int]:
    """Height and width of the padded batch: the largest, in multiples of 32 pixels."""
    height, width = (-(-int(length) // 32) * 32 for length in sizes.max(axis=0))
    return height, width


def rules_of(
    conventions: Conventions,
    strides: tuple[tuple[int, int], ...],
    *,
    before: int,
    proposals: int,
    detections: DetectRule,
) -> DetectionRules:
    """The rules of a case.

    Args:
      strides: of the five levels.
      before, proposals: see `ProposalRule`.
      detections: without the least side, which is that of the conventions.
    """
    return DetectionRules(
        anchors=AnchorGrid(
            _SIDES, _RATIOS, strides, conventions.centre, conventions.rounded
        ),
        proposal_coder=BoxCoder(UNIT, conventions.log_range),
        proposals=ProposalRule(before, proposals, 0.7, conventions.least_proposal),
        roi_convention=conventions.roi,
        roi_samples=conventions.samples,
        roi_coder=BoxCoder(ROI, conventions.log_range),
        detections=detections._replace(least_side=conventions.least_detection),
    )


def model_of(
    backbone: ResNet, classes: int, rules: DetectionRules, canvas: tuple[int, int]
) -> MaskRCNN:
    """Mask R-CNN of the usual sizes, with no more proposals than there are anchors."""
    cells = sum(-(-canvas[0] // s) * -(-canvas[1] // s) for s in (4, 8, 16, 32, 64))
    size = min(rules.proposals.size, len(_RATIOS) * cells)
    rules = rules._replace(proposals=rules.proposals._replace(size=size))
    return MaskRCNN(
        backbone=backbone,
        fpn=FPN(256),
        rpn=RPN(256, ratios=len(_RATIOS)),
        rules=rules,
        box_head=BoxHead(classes, width=1024),
        mask_head=MaskHead(classes, dim=256, convs=4),
    )


def shapes_of(model: MaskRCNN) -> dict:
    """Shapes of the model's variables, which no number of boxes changes."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    rules = model.rules
    rules = rules._replace(
        proposals=rules.proposals._replace(size=1),
        detections=rules.detections._replace(size=1),
    )
    return jax.eval_shape(
        model.clone(rules=rules).init, jax.random.key(0), images, sizes
    )


@functools.lru_cache(maxsize=2)  # one of each library; they are large
def converted(case: Case, model: MaskRCNN, kind: str) -> dict:
    """The weights of a case, by the public converter."""
    variables, report = convert_tensors(case.weights(), shapes_of(model), kind)
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return variables


def given_regions(case: Case, images: int) -> tuple[np.ndarray, np.ndarray]:
    """The stored regions [B, R, 4] of every image, and which are no padding [B, R]."""
    boxes = [case.arrays[f"given_rois/boxes/{i}"] for i in range(images)]
    most = max(map(len, boxes))
    padded = [np.pad(x, ((0, most - len(x)), (0, 0))) for x in boxes]
    return np.stack(padded), np.arange(most) < np.array([[len(x)] for x in boxes])


@functools.partial(jax.jit, static_argnums=0)
def run(model: MaskRCNN, variables, images, sizes, given):
    """Everything that inference computes, by name."""

    def everything(self):
        features = self.features(images)
        rpn, proposals = self.propose(features, sizes)
        found = self.detect(features, proposals, sizes)
        logits = jax.vmap(of_label)(self.masks(features, found.boxes), found.labels)
        pooled = self.pool(features, given, BOX_SIDE)
        return dict(
            features=features,
            rpn=rpn,
            anchors=self.anchors(features),
            proposals=proposals,
            proposed=self.classify(features, proposals.boxes),
            found=found,
            found_masks=jax.nn.sigmoid(logits),
            pooled=pooled,
            described=self.box_head.describe(pooled),
            given=self.box_head(pooled),
            given_masks=self.masks(features, given),
        )

    return model.apply(variables, method=everything)


def run_given(model: MaskRCNN, variables, images, sizes, regions) -> dict:
    """As `run`; what is said of given regions has them one after the other."""
    given, valid = regions
    out = jax.device_get(run(model, variables, images, sizes, given))
    of_given = ("pooled", "described", "given", "given_masks")
    return out | {x: jax.tree.map(lambda y: y[valid], out[x]) for x in of_given}


def shared_results(out: dict, levels: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays that both cases store under the same names.

    Args:
      out: of `run`.
      levels: names of the levels of the pyramid.
    """
    results = {
        "given_rois/box_pooled": nchw(out["pooled"]),
        "given_rois/box_features": out["described"],
    }
    start = 0
    for level, (name, x) in enumerate(zip(levels, out["features"], strict=True)):
        results[f"fpn/{name}"] = nchw(x)
        count = x.shape[1] * x.shape[2] * len(_RATIOS)
        for kind, values in zip(("objectness", "deltas"), out["rpn"], strict=True):
            part = values[:, start : start + count]
            part = part.reshape(*x.shape[:3], -1)
            results[f"rpn/{kind}/{level}"] = nchw(part)
        start += count
    return results


def valid_rows(values, i: int):
    """Returns the valid proposals or detections of one image."""
    valid = np.asarray(values.valid[i])
    return jax.tree.map(lambda x: np.asarray(x[i])[valid], values)


def model_of_case(case: Case, sizes: np.ndarray) -> MaskRCNN:
    """The model of the manifest's settings on images of these sizes."""
    settings, canvas = case.manifest["settings"], canvas_of(sizes)
    # torchvision divides the canvas by the size of the map: the last stride is not 64
    # where the canvas is no multiple of it.
    maps = [
        [-(-length // stride) for length in canvas] for stride in (4, 8, 16, 32, 64)
    ]
    strides = tuple((canvas[0] // h, canvas[1] // w) for h, w in maps)
    rules = rules_of(
        TORCHVISION,
        strides,
        before=settings["rpn_pre_nms_top_n_test"],
        proposals=settings["rpn_post_nms_top_n_test"],
        detections=DetectRule(
            score_threshold=settings["box_score_thresh"],
            iou_threshold=settings["box_nms_thresh"],
            least_side=0.0,
            size=settings["box_detections_per_img"],
        ),
    )
    classes = settings["num_classes"] - 1  # theirs counts the background
    return model_of(ResNet("50"), classes, rules, canvas)


def inputs_of_case(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Images [B, H, W, 3], resized and normalised, and their sizes."""
    sizes = np.array(case.manifest["settings"]["transformed_sizes"], np.int32)
    images = np.zeros((len(sizes), *canvas_of(sizes), 3), np.float32)
    for index, image in enumerate(images_of(case)):
        height, width = (int(length) for length in sizes[index])
        image = ((image - _MEAN) / _STD).astype(np.float32)
        images[index, :height, :width] = _resize(image, (height, width))
    return images, sizes


def compare(case: Case) -> dict[str, np.ndarray]:
    """Stored arrays of torchvision's inference as we compute them."""
    images, sizes = inputs_of_case(case)
    model = model_of_case(case, sizes)
    variables = converted(case, model, "mask_rcnn_torchvision")
    given = given_regions(case, len(images))
    out = run_given(model, variables, images, sizes, given)
    results = shared_results(out, ("0", "1", "2", "3", "pool")) | {
        "transformed/tensors": nchw(images),
        "rpn/anchors": out["anchors"],
        "given_rois/class_logits": _class_logits(out["given"].class_logits),
    }
    for i, image in enumerate(images_of(case)):
        original = image.shape[:2]
        found = valid_rows(out["found"], i)
        # In float32, as there.
        scale = np.divide(original[::-1], sizes[i, ::-1], dtype=np.float32)
        boxes = found.boxes * np.tile(scale, 2)
        masks = out["found_masks"][i][np.asarray(out["found"].valid[i])]
        results |= {
            f"proposals/{i}": valid_rows(out["proposals"], i).boxes,
            f"detections/{i}/boxes": boxes,
            f"detections/{i}/labels": found.labels + 1,
            f"detections/{i}/scores": found.scores,
            f"detections/{i}/masks": _paste(masks, boxes, size=original)[:, None],
        }
    return results | _of_proposals(case, out) | _without_background(case, out)


def _class_logits(logits: np.ndarray) -> np.ndarray:
    """The background first."""
    return np.roll(logits, 1, axis=-1)


def _of_proposals(case: Case, out: dict) -> dict[str, np.ndarray]:
    """Returns the box head's outputs for all proposals."""
    valid = np.asarray(out["proposals"].valid)
    logits, deltas = (np.asarray(x)[valid] for x in out["proposed"])
    return {
        "box_head/class_logits": _class_logits(logits),
        "box_head/box_regression": _with_background(case, "box_head", deltas),
    }


def _with_background(case: Case, name: str, deltas: np.ndarray) -> np.ndarray:
    """Deltas [R, 4 K] of every class, those of the background as stored.

    Ours are not computed for the background.
    """
    stored = case.arrays[f"{name}/box_regression"]
    full = np.zeros((len(deltas), 4 * (deltas.shape[1] + 1)), np.float32)
    full[:, 4:] = deltas.reshape(len(deltas), -1)
    part = case.subsample(f"{name}/box_regression", full)
    if part.shape == stored.shape:
        part[:, :4] = stored[:, :4]  # a view of `full`
    return full


def _without_background(case: Case, out: dict) -> dict[str, np.ndarray]:
    """Boxes and masks of the given regions."""
    masks = nchw(out["given_masks"])
    stored = case.arrays["given_rois/mask_logits"][:, :1]
    deltas = out["given"].deltas
    return {
        "given_rois/box_regression": _with_background(case, "given_rois", deltas),
        "given_rois/mask_logits": np.concatenate([stored, masks], axis=1),
    }

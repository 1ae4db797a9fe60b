"""Our Hybrid Task Cascade on the stored case of mmdetection: its heads on given maps.

Letters: R proposals, G given regions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from tests.golden.cases import Case, nchw, nhwc
from tests.golden.mask_rcnn import valid_rows
from vis_jax.backbones import fpn
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors import box_head, cascade, mask_head, semantic_head
from vis_jax.detectors.box_head import DetectRule
from vis_jax.detectors.cascade import Cascade, CascadeFeatures
from vis_jax.detectors.cascade_settings import Settings, StageSettings
from vis_jax.detectors.mask_head import merge_masks
from vis_jax.detectors.semantic_head import semantic_loss
from vis_jax.detectors.two_stage import BOX_SIDE, MASK_SIDE
from vis_jax.ops.masks import paste_masks
from vis_jax.ops.roi_align import Adaptive

_STRIDE = 4  # pixels of a cell of the finest map

_paste = compiled(paste_masks, static_argnames="size")


def model_of(case: Case) -> Cascade:
    """The model of the manifest; it has a backbone, which the case has not."""
    given = case.manifest["settings"]
    shapes = {x["name"]: x["shape"] for x in case.manifest["parameters"]["model"]}
    dim = case.arrays["fpn/0"].shape[1]
    width = shapes["roi_head.bbox_head.0.shared_fcs.0.bias"][0]
    semantic = given["semantic"]
    stds = np.array(given["target_stds"])
    ones = (1.0,) * len(stds)  # of training alone
    settings = Settings(
        num_classes=given["num_classes"],
        fpn=fpn.Settings(dim=dim),
        box_head=box_head.Settings(width=width),
        mask_head=mask_head.Settings(dim=dim),
        stages=StageSettings(
            iou=ones,
            centre_std=tuple(stds[:, 0].tolist()),
            side_std=tuple(stds[:, 2].tolist()),
            weight=ones,
        ),
        semantic=semantic_head.Settings(
            classes=semantic["num_classes"], dim=dim, convs=semantic["num_convs"]
        ),
        roi_samples=0,
    )
    pairs = len(case.arrays["proposals"]) * settings.num_classes
    count = min(given["max_per_img"], pairs)
    rule = DetectRule(given["score_thr"], given["nms_iou"], 0.0, count)
    model = cascade.Cascade(
        **cascade.cascade_parts(settings, rule, jnp.dtype("float32"))
    )
    # The source has no limits of these: enough for boxes as long as the finest map.
    most = -(-max(case.arrays["fpn/0"].shape[2:]) // BOX_SIDE)
    rules = model.rules._replace(roi_samples=Adaptive(most), candidates=pairs)
    return model.clone(rules=rules)


def converted(case: Case, model: Cascade) -> dict:
    """The heads' weights, by the public converter."""

    def heads(self, levels, boxes):
        logits, semantic = self.semantic_head(levels)
        features = CascadeFeatures(levels, semantic, logits)
        for stage in range(len(self.box_heads)):
            self.classify(stage, features, boxes)
        return self.all_masks(features, boxes)

    levels = tuple(nhwc(case.arrays[f"fpn/{i}"]) for i in range(5))
    boxes = np.zeros((1, 1, 4), np.float32)
    init = functools.partial(model.init, method=heads)
    shapes = dict(jax.eval_shape(init, jax.random.key(0), levels, boxes))
    variables, report = convert_tensors(case.weights(), shapes, "htc")
    if report.new or report.dropped:
        raise ValueError(f"expected every parameter to be filled, got {report.new}")
    return variables


@functools.partial(jax.jit, static_argnums=0)
def run(model: Cascade, variables, levels, proposals, given, size):
    """Everything that the case stores, by name."""

    def everything(self):
        logits, semantic = self.semantic_head(levels)
        features = CascadeFeatures(levels, semantic, logits)
        stages = self.run_stages(features, proposals, size[None])
        found = self.choose(stages, jnp.ones(proposals.shape[:2], bool)).found
        # Found and given regions at once, so that the mask heads are compiled once.
        count, boxes = found.boxes.shape[1], jnp.concatenate([found.boxes, given], 1)
        hidden = self.mask_hidden(features, boxes, len(self.mask_heads))
        masks = self.predict_masks(hidden, boxes)
        box_pooled = self.pool(levels, given, BOX_SIDE)
        both = box_pooled + self.pool_semantic(semantic, given, BOX_SIDE)
        of_found = tuple(x[:, :count] for x in masks)
        return dict(
            features=features,
            stages=stages,
            found=found,
            hidden=[x[:count] for x in hidden],  # of one image
            masks=of_found,
            probs=merge_masks(of_found, found.labels),
            given=[head(both) for head in self.box_heads],
            given_masks=[x[:, count:] for x in masks],
            box_pooled=box_pooled,
            mask_pooled=self.pool(levels, boxes, MASK_SIDE)[:, count:],
            semantic_pooled=self.pool_semantic(semantic, boxes, MASK_SIDE)[:, count:],
        )

    return model.apply(variables, method=everything)


def compare(case: Case) -> dict[str, np.ndarray]:
    """Stored arrays as we compute them."""
    model, stored = model_of(case), case.arrays
    levels = tuple(nhwc(stored[f"fpn/{i}"]) for i in range(5))
    size = np.array([_STRIDE * x for x in levels[0].shape[1:3]], np.int32)
    given = stored["given/rois"][None, :, 1:]
    proposals = stored["proposals"][None]
    variables = converted(case, model)
    out = jax.device_get(run(model, variables, levels, proposals, given, size))
    features, found = out["features"], valid_rows(out["found"], 0)
    valid = out["found"].valid[0]
    masks = [x[0][valid] for x in out["masks"]]
    probs = out["probs"][0][valid]
    results = {
        "semantic/logits": nchw(features.semantic_logits),
        "semantic/feature": nchw(features.semantic),
        "semantic/loss": _semantic_loss(features.semantic_logits, stored),
        "detections/boxes": np.concatenate(
            [found.boxes, found.scores[:, None]], axis=1
        ),
        "detections/labels": found.labels,
        "detections/mask_area_by_class_order": _areas(found, probs, size),
        "mask/merged": nchw(np.mean([_sigmoid(x) for x in masks], axis=0)),
        "given/mask_test": nchw(sum(x[0] for x in out["given_masks"])),
        "given/bbox_roi_features": nchw(out["box_pooled"][0]),
        "given/mask_roi_features": nchw(out["mask_pooled"][0]),
        "given/semantic_roi_features": nchw(out["semantic_pooled"][0]),
    }
    for i, output in enumerate(out["stages"].outputs):
        boxes = out["stages"].boxes[i][0]
        results |= {
            f"stage/{i}/rois": np.pad(boxes, ((0, 0), (1, 0))),
            f"stage/{i}/cls_score": output.class_logits[0],
            f"stage/{i}/bbox_pred": output.deltas[0],
            f"given/cls_score/{i}": out["given"][i].class_logits[0],
            f"given/bbox_pred/{i}": out["given"][i].deltas[0, :, 0],
            f"mask/{i}": nchw(masks[i]),
            f"mask/{i}/feature": nchw(out["hidden"][i][valid]),
        }
    return results


def _semantic_loss(logits: np.ndarray, stored) -> np.ndarray:
    """With the weight of the public configs, 0.2."""
    labels = stored["semantic/labels"][:, 0].astype(np.int32)
    return 0.2 * np.asarray(compiled(semantic_loss)(logits, labels))


def _areas(found, probs: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Class and pixels of the mask of every object, ordered by class, then score."""
    pasted = _paste(probs, found.boxes, size=tuple(size.tolist()))
    areas = (pasted >= 0.5).sum(axis=(1, 2))
    order = np.argsort(found.labels, kind="stable")
    return np.stack([found.labels, areas], axis=1)[order]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))

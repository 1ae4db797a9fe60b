"""Our RGNNVIS on the stored case of the released code.

The authors put a row for the background before the tracks and one for new tracks behind
them in what they store of the video, and an empty detection before all detections.
"""

import collections
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.golden.cases import Case, Results, nchw, nhwc
from vis_jax.association import track_graph, track_masks
from vis_jax.association.track_appearance import INSIDE_BOX, FrameAppearance
from vis_jax.association.track_decisions import ACTIVE, Thresholds
from vis_jax.association.track_graph import FrameDecisions, Memory, empty_memory
from vis_jax.backbones import resnet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.yolact import CODER, YolactRule, priors_of
from vis_jax.layers.graph import Graph, GraphNetwork
from vis_jax.losses.multibox import YolactOutput
from vis_jax.ops.bilinear import resize
from vis_jax.ops.box_coder import decode
from vis_jax.systems.rgnn_model import (
    AppearanceSettings,
    FrozenDetections,
    Model,
    ModelSettings,
    build_model,
    frames_of,
)

# Parts that only the released code has.
_GRAPH = track_graph.Settings(
    residual_layers=2,
    feedback=True,
    fixed_variance=True,
    looks_from_zero=True,
    keep_boxes=False,
)
_CANDIDATES = 200
_BACKGROUND, _NEW = 3, 4  # status of the authors' additional rows
# The released code never reads the background logit of its settings.
_BACKGROUND_LOGIT = 10.0


def model_of_case(case: Case) -> Model:
    """The model of the manifest."""
    settings = case.manifest["settings"]
    graph = {**vars(_GRAPH), "tracks": settings["max_num_tracks"]}
    model = ModelSettings(
        num_classes=settings["num_classes"] - 1,
        backbone=resnet.Settings(norm="batch"),
        appearance=AppearanceSettings(describe_background=False),
        graph=track_graph.Settings(**graph),
        masks=track_masks.Settings(background=_BACKGROUND_LOGIT),
    )
    rule = YolactRule(
        float(np.exp(settings["raw_det_threshold"])),
        settings["nms_iou_threshold"],
        candidates=_CANDIDATES,
        size=settings["max_num_detections"],
        across_classes=True,
        clipped=True,
    )
    return build_model(model, rule, jnp.dtype("float32"))


def images_of_case(case: Case):
    """The input of the network, whose pixels are stored once for a square of them."""
    small = nhwc(case.arrays["small_images"])
    side = canvas_of_case(case)[0] // small.shape[1]
    return small.repeat(side, axis=1).repeat(side, axis=2)


def shapes_of(model: Model) -> dict:
    """Shapes of the variables."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    size = jax.ShapeDtypeStruct((2,), jnp.int32)
    init = functools.partial(model.init, method="look")
    return dict(jax.eval_shape(init, jax.random.key(0), images, size))


def converted(case: Case, model: Model) -> dict:
    """The weights of a case, by the public converter."""
    variables, report = convert_tensors(case.weights(), shapes_of(model), "rgnn_vis")
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return variables


class Seen(NamedTuple):
    """Results for all frames before linking."""

    out: YolactOutput
    priors: np.ndarray
    sight: FrozenDetections
    described: FrameAppearance
    maps: dict  # projected features


@functools.partial(jax.jit, static_argnums=0)
def see(model: Model, variables, images) -> Seen:
    """Processes all frames independently."""

    def look(self: Model, images) -> Seen:
        features = self.backbone(images)
        levels = self.detector.levels(features)
        sizes = jnp.broadcast_to(
            jnp.array([images.shape[1:3]], jnp.int32), (len(images), 2)
        )
        sight = self.see(images, sizes)
        return Seen(
            self.detector(levels),
            priors_of(levels, self.priors),
            sight,
            self.describe(sight.pooled, sight.valid),
            {
                name: project(features[name], jnp.ones(features[name].shape[:3]))
                for name, project in self.appearance.projections.items()
            },
        )

    return model.apply(variables, images, method=look)


def canvas_of_case(case: Case) -> tuple[int, int]:
    """Height and width of the images in pixels."""
    return tuple(case.manifest["settings"]["working_size"])


class Step(NamedTuple):
    """Results of linking one frame."""

    memory: Memory
    linked: FrameDecisions
    graph: Graph  # behind the network
    masks: np.ndarray


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def link(
    model: Model, canvas, threshold: float, variables, memory: Memory, frame, masks
) -> Step:
    """Links one frame, given the memory of the previous ones."""
    (memory, linked), inside = model.apply(
        variables,
        memory,
        frame,
        canvas,
        Thresholds(threshold, threshold),
        False,
        method="link",
        mutable=["intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, GraphNetwork),
    )
    (graph,) = [
        x
        for x in jax.tree.leaves(inside, is_leaf=lambda x: isinstance(x, Graph))
        if isinstance(x, Graph)
    ]
    drawn = model.apply(variables, *masks, linked, method="draw")
    return Step(memory, linked, graph, drawn)


def compare(case: Case) -> Results:
    """All stored arrays but those of losses as we compute them."""
    model = model_of_case(case)
    variables = converted(case, model)
    images = images_of_case(case)
    seen = see(model, variables, images)
    results = {}
    for index in range(len(images)):
        results |= _detected(seen, index, canvas_of_case(case))
    steps = _steps(case, model, variables, seen)
    for index, step in enumerate(steps):
        before = steps[index - 1].memory if index else None
        results |= _linked(step, before, index)
    results |= _video(case, model, steps)
    return jax.device_get(results)


def _detected(seen: Seen, index: int, canvas: tuple[int, int]) -> Results:
    """Returns one frame's detections and appearance features."""
    out, sight = seen.out, seen.sight
    one = slice(index, index + 1)
    last = np.float32([canvas[::-1]]).repeat(2, axis=0).reshape(1, 4) - 1
    boxes = decode(out.deltas[index], seen.priors, coder=CODER)
    inside = sight.inside[one].astype(jnp.float32)
    found = {
        "active": sight.valid[one],
        "boxes": sight.boxes[one],
        "segscores": sight.mask_logits[one] + INSIDE_BOX * inside,
        "lbscores": sight.logits[one],
        "raw_segscores": sight.mask_logits[one],
        "box_segscores": inside,
    }
    results = {
        "detector/yolact_loc": out.deltas[one],
        "detector/yolact_conf": out.class_logits[one],
        "detector/yolact_maskcoeffs": out.coefficients[one],
        "detector/yolact_priorboxes": seen.priors,
        "detector/yolact_protosegmaps": out.prototypes[one],
        "detector/yolact_semantic_segmap": nchw(out.semantic_logits[one]),
        "detector/yolact_boxes": jnp.clip(boxes, 0.0, last)[None],
        **{f"detections/{name}": x for name, x in found.items()},
        **{f"descriptor/0/{name}": x for name, x in found.items()},
        "descriptor/0/appearance": seen.described.appearance[one],
        "descriptor/1/appearance_mean": seen.described.background[one],
        "appnet/0": nchw(seen.maps["res4"][one]),
        "appnet/1": nchw(seen.maps["res5"][one]),
    }
    return {f"frame/{index}/{name}": x for name, x in results.items()}


def _steps(case: Case, model: Model, variables, seen: Seen) -> list[Step]:
    """All frames in order."""
    sight = seen.sight
    frames = frames_of(sight, seen.described, jnp.ones(len(sight.valid), bool))
    threshold = case.manifest["settings"]["novel_acceptance_threshold"]
    memory = empty_memory(model.graph.settings, model.graph.width)
    steps = []
    for index in range(len(sight.valid)):
        frame = jax.tree.map(lambda x, i=index: x[i], frames)
        masks = (sight.mask_logits[index], sight.inside[index])
        fixed = (model, canvas_of_case(case), threshold)
        steps.append(link(*fixed, variables, memory, frame, masks))
        memory = steps[-1].memory
    return steps


def _linked(step: Step, before: Memory | None, index: int) -> Results:
    """Returns one frame's graph, decisions and tracks."""
    memory, linked, graph = step.memory, step.linked, step.graph
    active = linked.status == ACTIVE
    tracks = {
        "lbscores": linked.class_logits,
        "time": np.int64(index + 1),
        "embedding": memory.hidden,
        "appearance_mean": memory.appearance.mean[:-1],
        "appearance_var": memory.appearance.var[:-1],
        "active": linked.status,
        "memory_cell": memory.cell,
    }
    results = {
        "matcher/0": linked.match_logits,
        "matcher/1": linked.start_logits,
        "matcher/3/bkg_vertex": graph.empty,
        "matcher/3/trk_vertices": graph.tracks,
        "matcher/3/det_vertices": graph.detections,
        "matcher/3/bkgdet_edges": graph.empty_edges,
        "matcher/3/trkdet_edges": graph.edges,
        # The authors' detections begin with 1 in what they store of this.
        "assigner/0": jnp.where(active, linked.chosen, 1),
        "assigner/1": linked.born.astype(jnp.uint8),
        "assigner/2": linked.status,
        **{f"tracks/0/{name}": x for name, x in tracks.items()},
        "tracks/0/boxes": jnp.full_like(memory.boxes, -1.0)
        if before is None
        else before.boxes,
        "tracks/1/appearance_mean": memory.appearance.mean[-1],
        "tracks/1/appearance_var": memory.appearance.var[-1],
        "tracks/1/memory_cell": memory.empty_cell,
        "tracks/1/embedding": memory.empty_hidden,
        "output/0/boxes": memory.boxes,
        "output/0/segscores": step.masks,
        "output/0/lbscores": linked.class_logits,
        "output/0/active": linked.status,
        **{f"output/1/{name}": x for name, x in tracks.items()},
        "output/1/boxes": memory.boxes,
    }
    named = {
        f"frame/{index}/{name}": np.asarray(x) if name.endswith("/time") else x[None]
        for name, x in results.items()
    }
    named[f"frame/{index}/output/1/segstate"] = np.asarray(step.masks)[:, None]
    return named


def _video(case: Case, model: Model, steps: list[Step]) -> Results:
    """Returns the stored values of the whole video."""
    count = len(steps[0].linked.status)
    height, width = canvas_of_case(case)
    rows = collections.defaultdict(list)
    status, births = np.zeros(count, np.int64), np.zeros((count, 2), np.int64)
    for index, step in enumerate(jax.device_get(steps)):
        linked = step.linked
        rows["before"].append(np.r_[_BACKGROUND, status, _NEW])
        rows["births"].append(np.pad(births, ((1, 1), (0, 0))))
        born = linked.born[:, None]
        births = np.where(
            born, np.stack([np.full(count, index), linked.chosen + 1], 1), births
        )
        status = linked.status.astype(np.int64)
        rows["after"].append(np.r_[_BACKGROUND, status, _NEW])
        pairs = np.concatenate(
            [
                np.full_like(linked.match_logits[:1], -np.inf),
                linked.match_logits,
                linked.start_logits[None],
            ]
        )
        rows["logits"].append(np.pad(pairs, ((0, 0), (1, 0)), constant_values=-np.inf))
        whole, none = [0, 0, height, width], [-1] * 4
        rows["boxes"].append(np.concatenate([[whole], step.memory.boxes, [none]]))
        rows["scores"].append(np.pad(linked.class_logits, ((1, 1), (0, 0))))
        large = np.asarray(resize(jnp.asarray(step.masks)[..., None], (height, width)))[
            ..., 0
        ]
        background = np.full_like(large[:1], model.background)
        rows["segments"].append(np.concatenate([background, large]).argmax(axis=0))
    found = {name: np.stack(x)[None] for name, x in rows.items()}
    return {
        "video/lbscores": found["scores"][:, -1],
        "video/track_active": found["before"],
        "video/track_initializers": found["births"],
        "video/track_detection_assignments": found["logits"],
        "video/aux_vis_lbscores": found["scores"],
        "video/object_boxes": found["boxes"],
        "video/active_objects": found["after"],
        "video/instance_segs": found["segments"],
    }

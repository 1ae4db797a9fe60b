"""Our RGNNVIS on the stored case of the released code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.golden.cases import Case, Results, nchw, nhwc
from vis_jax.association import track_graph
from vis_jax.association.track_appearance import INSIDE_BOX
from vis_jax.association.track_decisions import Thresholds
from vis_jax.backbones import resnet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.yolact import FindRule, priors_of
from vis_jax.systems.rgnn_model import (
    AppearanceSettings,
    Model,
    ModelSettings,
    build_model,
    frames_of,
    link_frames,
)

# What the released code has and the paper has not.
_GRAPH = track_graph.Settings(
    residual_layers=2,
    feedback=True,
    fixed_variance=True,
    looks_from_zero=True,
    keep_boxes=False,
)
_CANDIDATES = 200
_MAGNIFIED = 8  # the stored images are that much smaller than the network's
_BACKGROUND, _NEW = 3, 4  # status codes of the authors' additional rows


def model_of_case(case: Case) -> Model:
    """The model of the manifest."""
    settings = case.manifest["settings"]
    graph = {**vars(_GRAPH), "tracks": settings["max_num_tracks"]}
    model = ModelSettings(
        num_classes=settings["num_classes"] - 1,
        backbone=resnet.Settings(norm="batch"),
        appearance=AppearanceSettings(describe_background=False),
        graph=track_graph.Settings(**graph),
    )
    rule = FindRule(
        float(np.exp(settings["raw_det_threshold"])),
        settings["nms_iou_threshold"],
        candidates=_CANDIDATES,
        size=settings["max_num_detections"],
        across_classes=True,
        clipped=True,
    )
    return build_model(model, rule, jnp.float32)


def images_of_case(case: Case):
    """The input of the network."""
    small = nhwc(case.arrays["small_images"])
    return small.repeat(_MAGNIFIED, axis=1).repeat(_MAGNIFIED, axis=2)


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


@functools.partial(jax.jit, static_argnums=0)
def see(model: Model, variables, images):
    """What the detector says of the frames, and what it makes of that."""

    def both(self: Model, images):
        features = self.backbone(images)
        levels = self.detector.levels(features)
        sizes = jnp.broadcast_to(
            jnp.array([images.shape[1:3]], jnp.int32), (len(images), 2)
        )
        priors = priors_of(levels, self.priors)
        sight = self.see(images, sizes)
        described = self.describe(sight.pooled, sight.valid)
        maps = self.appearance.project(features)
        return self.detector(levels), priors, sight, described, maps

    return model.apply(variables, images, method=both)

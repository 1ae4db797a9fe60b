"""Our CondInst on the stored case of IAI, whose image model it is.

The features of the association are taken from the case: what changes the last stage of
the backbone is stored as `lstt_output`. Identities, memories and the losses, which
depend on both, are not compared.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.golden.cases import Case, Results, nchw, nhwc
from vis_jax.backbones.fpn import Settings as FpnSettings
from vis_jax.backbones.resnet import ResNet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors import fcos
from vis_jax.detectors.condinst import MaskSettings, build_modules, mask_logits
from vis_jax.detectors.fcos import (
    Cells,
    Places,
    boxes_at,
    candidates,
    places_of,
    suppress,
)
from vis_jax.ops.boxes import clip_boxes
from vis_jax.ops.dynamic_masks import WIDTH

ASSOCIATION = ("lstt.", "encoder_projector.", "backbone_projector.")


class Network(nn.Module):
    """Backbone and detector."""

    backbone: nn.Module
    detector: nn.Module

    def stages(self, images):
        """Features of the backbone."""
        return self.backbone(images)

    def say(self, features):
        """The pyramid, and what is said of the images."""
        levels = self.detector.levels(features)
        return levels, self.detector(levels)

    def __call__(self, images):
        """All of it, without association."""
        return self.say(self.stages(images))


def network_of(classes: int, ids: int, norm: str = "frozen_stats") -> Network:
    """The published size with a ResNet-50."""
    detector = build_modules(
        FpnSettings(extra="relu_conv"), fcos.Settings(), MaskSettings(),
        classes=classes, dtype=jnp.float32, ids=ids,
    )  # fmt: skip
    return Network(ResNet("50", norm=norm), detector)


def shapes_of(network: Network) -> dict:
    """Shapes of the variables."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return dict(jax.eval_shape(network.init, jax.random.key(0), images))


def image_weights(case: Case) -> dict[str, np.ndarray]:
    """The weights of a case without those of the association."""
    weights = case.weights()
    return {k: x for k, x in weights.items() if not k.startswith(ASSOCIATION)}


def converted(case: Case, network: Network) -> dict:
    """The weights of the image model, by the public converter."""
    variables, report = convert_tensors(
        image_weights(case), shapes_of(network), "condinst"
    )
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return variables


def compare(case: Case) -> Results:
    """The stored arrays of the image model as we compute them."""
    settings = case.manifest["settings"]
    network = network_of(settings["num_classes"], settings["max_obj_num"])
    variables, video = converted(case, network), nhwc(case.arrays["infer/video"])
    apply = jax.jit(network.apply, static_argnames="method")
    stages = jax.device_get(apply(variables, video, method="stages"))
    results = {f"infer/backbone/{n}": nchw(stages[f"res{n + 2}"]) for n in range(4)}
    associated = stages | {"res5": _associated(case, stages["res5"])}
    levels, out = jax.device_get(apply(variables, associated, method="say"))
    for t in range(len(video)):
        results |= _head(levels, out, t)
    find = jax.jit(functools.partial(_found, settings, _cells(levels)))
    for t in (0, 1):
        one = jax.tree.map(lambda x, t=t: x[t], out)
        chosen, logits = find(one, first=np.bool_(t == 0))
        results |= _masks(one, chosen, logits, f"dynamic_mask/{t}")
    return jax.device_get(results)


def _associated(case: Case, res5: np.ndarray) -> np.ndarray:
    """What the association makes of the last stage; its block is stored."""
    weights = case.weights()

    def project(name: str) -> np.ndarray:
        kernel = weights[f"{name}.weight"][:, :, 0, 0].T
        return res5 @ kernel + weights[f"{name}.bias"]

    encoded = project("encoder_projector")
    stored = [
        case.arrays[f"infer/{t}/lstt_output/0"].reshape(encoded.shape[1:])
        for t in range(len(res5))
    ]
    parts = [encoded, np.stack(stored), project("backbone_projector")]
    return np.concatenate(parts, axis=-1)


def _cells(levels) -> Cells:
    return tuple(x.shape[1:3] for x in levels)


def _head(levels, out, t: int) -> Results:
    """Pyramid and outputs of one frame by level."""
    results, start = {}, 0
    dense = out.dense
    outputs = (
        dense.class_logits, dense.id_logits, dense.distances,
        dense.centre_logits[..., None], dense.filters,
    )  # fmt: skip
    for number, (height, width) in enumerate(_cells(levels)):
        results[f"infer/{t}/fpn/{number}"] = nchw(levels[number][t : t + 1])
        end = start + height * width
        for kind, values in enumerate(outputs):
            maps = values[t, start:end].reshape(1, height, width, -1)
            results[f"infer/{t}/head/{kind}/{number}"] = nchw(maps)
        start = end
    return results | {f"infer/{t}/head/5": nchw(out.features[t : t + 1])}


def _found(settings, cells, out, *, first):
    """The locations of the objects of a frame in IAI, and their masks."""
    places = places_of(cells)
    ids = jax.nn.sigmoid(out.dense.id_logits).max(axis=1)
    classes = jax.nn.sigmoid(out.dense.class_logits).max(axis=1)
    centres = jax.nn.sigmoid(out.dense.centre_logits)
    near = candidates(classes * centres, cells, most=settings["nms_pre"])
    boxes = boxes_at(places.locations[near], out.dense.distances[near])
    a, b, centres = classes[near], ids[near], centres[near]
    kept = suppress(
        clip_boxes(boxes, jnp.array(settings["img_shape"])),
        jnp.where(first, a + 0.5 * b, 0.5 * a + b) * centres,
        valid=(a > settings["cls_score_thr"]) & (b > settings["id_score_thr"]),
        iou_threshold=settings["nms_iou"],
        size=settings["max_per_img"],
    )
    chosen = near[kept.chosen]
    at = Places(places.locations[chosen], places.strides[chosen])
    logits = mask_logits(out.dense.filters[chosen], out.features, at)
    return (chosen, at, kept.valid), logits


def _masks(out, chosen, logits, prefix: str) -> Results:
    """What the dynamic convolutions read, their weights, and their output."""
    index, at, valid = jax.device_get(chosen)
    if not valid.all():
        raise ValueError(f"{prefix}: expected {len(valid)} objects, got {valid.sum()}")
    height, width, channels = out.features.shape
    middle = np.stack(np.meshgrid(np.arange(width), np.arange(height))) * 8 + 4
    reach = 8.0 * at.strides[:, None, None, None]
    relative = (at.locations[:, :, None, None] - middle) / reach
    features = np.broadcast_to(
        np.moveaxis(out.features, -1, 0), (len(index), channels, height, width)
    )
    shapes = {
        "weight0": (WIDTH, channels + 2), "weight1": (WIDTH, WIDTH),
        "weight2": (1, WIDTH), "bias0": (WIDTH,), "bias1": (WIDTH,), "bias2": (1,),
    }  # fmt: skip
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    parts = np.split(np.asarray(out.dense.filters)[index], ends[:-1], axis=1)
    results = {
        f"{prefix}/input": np.concatenate([relative, features], 1).reshape(
            1, -1, height, width
        ),
        # Stored before the enlargement, which leaves these cells as they are.
        f"{prefix}/logits": np.asarray(logits)[None, :, 1::2, 1::2],
    }
    for part, (name, shape) in zip(parts, shapes.items(), strict=True):
        flat = part.reshape(-1, *shape[1:])
        results[f"{prefix}/{name}"] = flat[..., None, None] if len(shape) > 1 else flat
    return results

"""Our YOLACT on the stored case of the released code."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.golden.cases import Case, CaseError, Results, nchw, nhwc
from vis_jax.backbones.resnet import ResNet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.yolact import (
    CODER,
    PriorSettings,
    Settings,
    YolactRule,
    build_modules,
    combine,
    cropped_masks,
    find,
    priors_of,
)
from vis_jax.losses.multibox import (
    ImageObjects,
    MultiboxLosses,
    PriorRule,
    multibox_losses,
)
from vis_jax.ops.bilinear import resize
from vis_jax.ops.boxes import clip_boxes

# Values that the manifest's settings name as a whole: `yolact_resnet50_config`.
_SIDES, _RATIOS, _DIVISOR = (24.0, 48.0, 96.0, 192.0, 384.0), (1.0, 0.5, 2.0), 550.0
_DETECT = YolactRule(0.05, 0.5, candidates=200, size=100, across_classes=False)
_TRAIN = PriorRule(positive=0.5, negative=0.4, negatives=3, masks=100)
# The order of the released code, and the weights that its losses have.
_LOSSES = {"C": ("classes", 1.0), "B": ("boxes", 1.5), "M": ("masks", 6.125)}
_LOSSES["S"] = ("semantic", 1.0)


class Network(nn.Module):
    """Backbone and detector."""

    backbone: nn.Module
    detector: nn.Module

    def __call__(self, images, train: bool):
        """Features of the backbone, the pyramid, and what is said of the images."""
        features = self.backbone(images, train)
        levels = self.detector.levels(features)
        return features, levels, self.detector(levels)


def model_of_case(case: Case) -> tuple[Network, PriorSettings]:
    """The model of the manifest, and the priors on its images."""
    image = case.arrays["image"].shape[2:]
    priors = PriorSettings(
        sides=_SIDES, ratios=_RATIOS, divisor=_DIVISOR, square=True, image=tuple(image)
    )
    shapes = {x["name"]: x["shape"] for x in case.manifest["parameters"]["model"]}
    outputs = shapes["prediction_layers.0.conf_layer.bias"][0]
    # Theirs has the background.
    settings = Settings(num_classes=outputs // len(_RATIOS) - 1, priors=priors)
    detector = build_modules(settings, jnp.float32)
    return Network(ResNet("50", norm="batch"), detector), priors


def shapes_of(network: Network) -> dict:
    """Shapes of the variables."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    init = functools.partial(network.init, train=False)
    return dict(jax.eval_shape(init, jax.random.key(0), images))


def converted(case: Case, network: Network) -> dict:
    """The weights of a case, by the public converter."""
    variables, report = convert_tensors(case.weights(), shapes_of(network), "yolact")
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return variables


def objects_of_case(case: Case, *, crowd: bool) -> ImageObjects:
    """The true objects of the images, padded.

    With `crowd` the last one of an image is a crowd, which only the notes state.
    """
    count = len(case.arrays["image"])
    height, width = case.arrays["image"].shape[2:]
    targets = [case.arrays[f"targets/{i}"] for i in range(count)]
    most = max(map(len, targets))
    boxes = np.zeros((count, most, 4), np.float32)
    labels = np.zeros((count, most), np.int32)
    masks = np.zeros((count, most, height, width), bool)
    for i, target in enumerate(targets):
        boxes[i, : len(target)] = target[:, :4] * np.float32([width, height] * 2)
        labels[i, : len(target)] = target[:, 4]
        masks[i, : len(target)] = case.arrays[f"target_masks/{i}"] > 0
    valid = np.arange(most) < np.array([len(x) for x in targets])[:, None]
    is_crowd = np.zeros_like(valid)
    if crowd:
        notes = " ".join(case.manifest["notes"])
        stated = re.search(r"Image (\d+) carries one crowd", notes)
        if stated is None:
            raise CaseError(f"{case.path}: notes: expected 'Image N carries one crowd'")
        place = int(stated[1])
        is_crowd[place, len(targets[place]) - 1] = True
    return ImageObjects(boxes, labels, masks, valid, is_crowd)


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def run(network: Network, variables, images, *, train: bool):
    """Runs `Network` without updating the running statistics."""
    return network.apply(variables, images, train, mutable=["batch_stats"])[0]


def compare(case: Case) -> Results:
    """All stored arrays as we compute them.

    What the case stores of the training mode, the raw logits, the losses and their
    gradients, normalised by the statistics of its two images, whatever its notes say.
    """
    network, settings = model_of_case(case)
    images = nhwc(case.arrays["image"])
    variables = converted(case, network)
    features, levels, out = run(network, variables, images, train=False)
    trained = run(network, variables, images, train=True)[2]
    height, width = images.shape[1:3]
    priors = priors_of(levels, settings)
    corners = np.asarray(priors) / np.float32([width, height] * 2)
    results = {
        **{f"backbone/C{n}": nchw(features[f"res{n}"]) for n in (3, 4, 5)},
        **{f"fpn/P{n}": nchw(x) for n, x in enumerate(levels, start=3)},
        "priors": np.concatenate(
            [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1
        ),
        "loc": out.deltas,
        "conf": trained.class_logits,
        "conf_softmax": jax.nn.softmax(out.class_logits),
        "mask_coefficients": out.coefficients,
        "proto": out.prototypes,
        "segm": nchw(trained.semantic_logits),
    }
    for i in range(len(images)):
        results |= _found(case, jax.tree.map(lambda x, i=i: x[i], out), priors, i)
    for name, crowd in (("no_crowd", False), ("crowd", True)):
        objects = objects_of_case(case, crowd=crowd)
        results |= _trained(trained, objects, priors, f"loss/{name}")
    return jax.device_get(results)


def _found(case: Case, out, priors, i: int) -> Results:
    """Objects of one image, and their masks at the stored size."""
    height, width = case.arrays["image"].shape[2:]
    rows, columns = case.manifest["settings"]["output_size"]
    size = np.array([height, width], np.int32)
    found = jax.jit(functools.partial(find, rule=_DETECT))(out, priors, size)
    coefficients = out.coefficients[found.priors]
    masks = cropped_masks(
        combine(out.prototypes, coefficients), found.boxes, (height, width)
    )
    inside = np.asarray(resize(masks[..., None], (rows, columns)))[..., 0] > 0
    pixels = np.float32([width, height] * 2)
    final = np.float32([columns, rows] * 2)
    relative = np.asarray(found.boxes) / pixels
    clipped = clip_boxes(jnp.asarray(relative * final), jnp.array([rows, columns]))
    shown = np.asarray(found.valid)
    packed = f"post/{i}/masks_packed"
    count = case.arrays[packed].size * 8 // (rows * columns)
    return {
        f"detections/{i}/box": relative[shown],
        f"detections/{i}/mask": coefficients[shown],
        f"detections/{i}/class": found.labels[shown],
        f"detections/{i}/score": found.scores[shown],
        f"detections/{i}/proto": out.prototypes,
        f"post/{i}/class": found.labels[shown],
        f"post/{i}/score": found.scores[shown],
        f"post/{i}/box_pixels": np.asarray(clipped)[shown].astype(np.int64),
        f"post/{i}/mask_area": inside[shown].sum(axis=(1, 2)),
        packed: np.packbits(inside[shown][:count]),
    }


def _trained(out, objects: ImageObjects, priors, prefix: str) -> Results:
    """The weighted losses, and the gradient of their sum."""

    def losses_of(out) -> tuple[jax.Array, MultiboxLosses]:
        found = multibox_losses(
            jax.random.key(0),
            out,
            objects,
            image_valid=jnp.ones(len(objects.valid), bool),
            priors=priors,
            coder=CODER,
            rule=_TRAIN,
        )
        values = found._asdict()
        terms = {key: weight * values[name] for key, (name, weight) in _LOSSES.items()}
        return sum(terms.values()), terms

    gradient, terms = jax.jit(jax.grad(losses_of, has_aux=True))(out)
    per_prior = {
        "loc": gradient.deltas,
        "conf": gradient.class_logits,
        "mask": gradient.coefficients,
    }
    return {
        **{f"{prefix}/{name}": value for name, value in terms.items()},
        **{
            f"{prefix}/grad_{name}_abs_sum_per_prior": np.abs(x).sum(-1)
            for name, x in per_prior.items()
        },
        f"{prefix}/grad_proto": gradient.prototypes,
    }

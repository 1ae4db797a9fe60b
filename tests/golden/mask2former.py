"""Our Mask2Former(-VIS) on a stored case: every stored array, in official layout."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tests.golden.cases import Case, nchw, nhwc
from tests.golden.gradients import official_gradients
from vis_jax.converters.load import convert_tensors
from vis_jax.layers.queries import (
    ClipFeatures,
    DecoderOutput,
    foreground,
    mask_logits,
    resized_features,
)
from vis_jax.losses.classification import weighted_cross_entropy
from vis_jax.losses.set_loss import Truth, Weights, mask_terms_at, match_cost_at
from vis_jax.ops.assignment import hungarian
from vis_jax.ops.bilinear import resize
from vis_jax.ops.point_sample import uncertain_points
from vis_jax.systems.ifr import Model, build_model

LAYERS = 9


def compare(case: Case) -> dict[str, np.ndarray]:
    """All stored outputs and intermediates as we compute them."""
    model, variables = converted(case)
    forward = run_forward(case, model, variables)
    return forward | run_inference(case, forward) | run_training(case, model, variables)


def converted(case: Case) -> tuple[Model, dict]:
    """The model of a case with its weights, by the public converter."""
    model = build_model(_config(case))
    frames = case.manifest["settings"]["frames"]
    images = jax.ShapeDtypeStruct((1, frames, 96, 160, 3), jnp.uint8)
    sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    valid = jax.ShapeDtypeStruct((1, frames), jnp.bool_)
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), images, sizes, valid)
    variables, report = convert_tensors(case.weights(), shapes, "mask2former")
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return model, variables


def run_forward(case: Case, model: Model, variables: dict) -> dict[str, np.ndarray]:
    """Activations on the stored image."""
    images, sizes, valid = _clips(case, "image")
    out, features, inner = _apply(model, variables, images, sizes, valid)
    backbone = inner["backbone"]["__call__"][0]
    results = {f"backbone/{name}": nchw(x) for name, x in backbone.items()}
    fine = np.asarray(features.mask_features)
    results["pixel_decoder/mask_features"] = nchw(fine.reshape(-1, *fine.shape[2:]))
    tokens = []
    for i, level in enumerate(features.levels):
        level = np.asarray(level).reshape(-1, *level.shape[2:])
        results[f"pixel_decoder/multi_scale_{i}"] = nchw(level)
        tokens.append(level.reshape(level.shape[0], -1, level.shape[-1]))
    results["pixel_decoder/encoder_output"] = np.concatenate(tokens, axis=1)
    tables = variables["params"]["decoder"]["tables"]
    queries = [
        np.broadcast_to(tables["query_feat"], (len(valid), *tables["query_feat"].shape))
    ]
    decoder = inner["decoder"]
    queries += [decoder[f"ffn_norm_{i}"]["__call__"][0] for i in range(LAYERS)]
    video = case.manifest["case"].startswith("video")
    small = resized_features(features)
    shape = out.class_logits.shape[1:3]
    for i in range(LAYERS + 1):
        results[f"decoder/{i}/logits"] = np.asarray(out.class_logits[i])
        results[f"decoder/{i}/query"] = np.swapaxes(np.asarray(queries[i]), 0, 1)
        masks = mask_logits(out.mask_embeds[i], features.mask_features)
        masks = np.asarray(masks).swapaxes(1, 2)  # [B, Q, T, h, w]
        results[f"decoder/{i}/masks"] = masks if video else masks[:, :, 0]
        if i < LAYERS:
            inside = foreground(out.mask_embeds[i], small[i % 3])
            blocked = ~np.asarray(inside).swapaxes(1, 2).reshape(*shape, -1)
            # Stored after the rule that a query without a mask looks everywhere.
            blocked &= ~blocked.all(axis=-1, keepdims=True)
            results[f"decoder/{i}/attn_mask_packed"] = np.packbits(blocked)
    return results


def run_inference(case: Case, forward: dict) -> dict[str, np.ndarray]:
    """Scores, labels and masks at the size of the video, from the last prediction."""
    settings = case.manifest["settings"]
    logits, masks = (forward[f"decoder/{LAYERS}/{x}"] for x in ("logits", "masks"))
    probs = np.asarray(jax.nn.softmax(logits, axis=-1))[..., :-1]
    if case.manifest["case"].startswith("video"):
        order = np.argsort(-probs[0].ravel(), kind="stable")[:10]
        chosen = masks[0][order // probs.shape[-1]]
        inside = enlarge(chosen, settings) > 0
        return {
            "inference/scores": probs[0].ravel()[order],
            "inference/labels": order % probs.shape[-1],
            "inference/masks_packed": np.packbits(inside),
            "inference/mask_area": inside.sum(axis=(2, 3)),
        }
    results = {}
    for i, (prob, mask) in enumerate(zip(probs, masks, strict=True)):
        order = np.argsort(-prob.ravel(), kind="stable")[:100]
        chosen = enlarge(mask[order // prob.shape[-1]], settings)
        inside = chosen > 0
        sigmoid = np.asarray(jax.nn.sigmoid(chosen))
        quality = (sigmoid * inside).sum(axis=(1, 2)) / (inside.sum(axis=(1, 2)) + 1e-6)
        scores = prob.ravel()[order] * quality
        best = np.argsort(-scores, kind="stable")[:40]
        results |= {
            f"inference/{i}/scores": scores[best],
            f"inference/{i}/labels": (order % prob.shape[-1])[best],
            f"inference/{i}/mask_area": inside[best].sum(axis=(1, 2)),
            f"inference/{i}/masks_packed": np.packbits(inside[best[:20]]),
        }
    return results


def enlarge(masks: np.ndarray, settings: dict) -> np.ndarray:
    """Mask logits at stride 4 to the canvas, cut to the content, to the output size."""
    height, width = settings["input_size"]
    x = jnp.moveaxis(jnp.asarray(masks), 0, -1)
    x = resize(x, (4 * masks.shape[-2], 4 * masks.shape[-1]))
    x = resize(x[..., :height, :width, :], tuple(settings["output_size"]))
    return np.asarray(jnp.moveaxis(x, -1, 0))


def run_training(case: Case, model: Model, variables: dict) -> dict[str, np.ndarray]:
    """Matches, points, losses and gradients for the stored targets and draws."""
    images, sizes, valid = _clips(case, "train/image")
    truth = _truth(case, valid)
    weights = _weights(case)
    costs = _costs(case, truth, weights)

    @jax.jit
    def loss(params):
        both = {**variables, "params": params}
        out, features = model.apply(both, images, sizes, valid, True)
        matched = jax.lax.stop_gradient(costs(out, features))
        terms = _terms(case, out, features, truth, matched, weights)
        return sum(jnp.sum(x) for x in terms.values()), (out, features, matched, terms)

    (total, aux), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    out, features, matched, terms = aux
    results = {
        "train/logits_final": np.asarray(out.class_logits[-1]),
        "loss/total": total,
    }
    for i in range(LAYERS + 1):
        suffix = "" if i == LAYERS else f"_{i}"
        results |= {f"loss/loss_{name}{suffix}": x[i] for name, x in terms.items()}
        results |= _matches(case, i, np.asarray(matched[i]))
        results |= _points(case, i, out, features, matched[i], truth)
    results |= official_gradients(case, variables, {"params": grads})
    return results


def _costs(case: Case, truth: Truth, weights: Weights):
    """Function (outputs, features) -> query of every instance of every set and clip."""
    batch = truth.valid.shape[0]
    points = np.stack(
        [
            np.stack(
                [case.arrays[f"rand/{_draw(i, b, batch):02d}"][0] for b in range(batch)]
            )
            for i in range(LAYERS + 1)
        ]
    )

    def match(out: DecoderOutput, features: ClipFeatures):
        cost = jax.vmap(match_cost_at, (0, 0, 0, 0, 0, None))  # clips
        cost = jax.vmap(cost, (0, 0, None, None, 0, None))  # sets
        costs = cost(
            out.class_logits,
            out.mask_embeds,
            features.mask_features,
            truth,
            points,
            weights,
        )
        return jax.vmap(jax.vmap(hungarian), (0, None))(costs, truth.valid)

    return match


def _terms(case, out, features, truth, matched, weights) -> dict[str, jax.Array]:
    """Weighted terms of every set: 'ce', 'mask' and 'dice', [L] each."""
    queries = out.class_logits.shape[2]
    no_object = out.class_logits.shape[3] - 1

    def targets(matched, labels, valid):
        empty = jnp.full((queries,), no_object, jnp.int32)
        index = jnp.where(valid, matched, queries)
        return empty.at[index].set(labels, mode="drop")

    labels = jax.vmap(jax.vmap(targets), (0, None, None))(
        matched, truth.labels, truth.valid
    )
    ce = jax.vmap(weighted_cross_entropy, (0, 0, None))(
        out.class_logits, labels, weights.no_object
    )
    terms = jax.vmap(mask_terms_at, (0, 0, 0, 0, 0, None))
    masks = []
    for i in range(LAYERS + 1):
        draws = _loss_draws(case, i)
        per_clip = terms(
            out.mask_embeds[i], matched[i], features.mask_features, truth, draws, 0.0
        )
        masks.append(per_clip.sum(axis=0) / truth.valid.sum())
    mask, dice = jnp.stack(masks).T
    return {
        "ce": weights.label * ce,
        "mask": weights.mask * mask,
        "dice": weights.dice * dice,
    }


def _matches(case: Case, layer: int, matched: np.ndarray) -> dict[str, np.ndarray]:
    """Pairs of a layer, sorted by query, as SciPy returns them."""
    results = {}
    for b, count in enumerate(_counts(case)):
        order = np.argsort(matched[b, :count])
        results[f"match/{layer}/{b}/query"] = matched[b, :count][order]
        results[f"match/{layer}/{b}/target"] = order
    return results


def _points(case: Case, layer: int, out, features, matched, truth):
    """Final points of the mask losses of a layer, in the official order."""
    embeds = jnp.take_along_axis(
        out.mask_embeds[layer], matched[:, None, :, None], axis=2
    )
    logits = jnp.moveaxis(mask_logits(embeds, features.mask_features), 2, 1)
    draws = [x[:, :, 0] for x in _loss_draws(case, layer)]
    choose = jax.vmap(jax.vmap(jax.vmap(uncertain_points)))
    points = np.asarray(choose(logits, *draws))
    ordered = [
        points[b, target]
        for b in range(len(points))
        for target in case.arrays[f"match/{layer}/{b}/target"]
    ]
    ordered = np.concatenate(ordered)  # instances x frames
    order = np.argsort(ordered[..., 0], axis=1, kind="stable")
    return {f"points/{layer}": np.take_along_axis(ordered, order[..., None], axis=1)}


def _loss_draws(case: Case, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Stored draws of the mask losses by instance slot: [B, M, 1, T, N, 2]."""
    counts = _counts(case)
    frames = case.manifest["settings"]["frames"]
    slots = []
    for offset in (0, 1):
        number = _draw(layer, len(counts) + offset, len(counts))
        stored = case.arrays[f"rand/{number:02d}"]
        stored = stored.reshape(-1, frames, *stored.shape[1:])
        out = np.zeros((len(counts), max(counts), 1, *stored.shape[1:]), np.float32)
        start = 0
        for b, count in enumerate(counts):
            target = case.arrays[f"match/{layer}/{b}/target"]
            out[b, target, 0] = stored[start : start + count]
            start += count
        slots.append(out)
    return tuple(slots)


def _draw(layer: int, index: int, batch: int) -> int:
    """Number of a stored draw: the last layer comes first, then 0 to 8."""
    return ((layer + 1) % (LAYERS + 1)) * (batch + 2) + index


def _counts(case: Case) -> list[int]:
    """Instances of each clip."""
    names = [n for n in case.arrays if n.startswith("train/") and n.endswith("labels")]
    return [len(case.arrays[name]) for name in sorted(names)]


def _truth(case: Case, frame_valid: np.ndarray) -> Truth:
    counts = _counts(case)
    height, width = _canvas(case)
    frames = frame_valid.shape[1]
    masks = np.zeros((len(counts), max(counts), frames, height, width), bool)
    labels = np.zeros(masks.shape[:2], np.int32)
    for b, count in enumerate(counts):
        stored = case.arrays[f"train/{b}/masks"]
        masks[b, :count, :, : stored.shape[2], : stored.shape[3]] = stored
        labels[b, :count] = case.arrays[f"train/{b}/labels"]
    valid = np.arange(max(counts))[None] < np.array(counts)[:, None]
    return Truth(
        jnp.asarray(labels), jnp.asarray(masks), jnp.asarray(valid), frame_valid
    )


def _clips(case: Case, name: str):
    """Images [B, T, H, W, 3] on the canvas, their sizes, and which frames are real."""
    frames = case.manifest["settings"]["frames"]
    stored = nhwc(case.arrays[name])
    stored = stored.reshape(-1, frames, *stored.shape[1:])
    height, width = _canvas(case)
    size = stored.shape[2:4]
    pad = ((0, 0), (0, 0), (0, height - size[0]), (0, width - size[1]), (0, 0))
    batch = len(stored)
    sizes = np.full((batch, 2), size, np.int32)
    images = np.pad(stored, pad)
    return jax.tree.map(jnp.asarray, (images, sizes, np.ones((batch, frames), bool)))


def _canvas(case: Case) -> tuple[int, ...]:
    return tuple(-(-x // 32) * 32 for x in case.manifest["settings"]["input_size"])


@functools.partial(jax.jit, static_argnums=0)
def _apply(model: Model, variables, images, sizes, valid):
    (out, features), state = model.apply(
        variables, images, sizes, valid, False, capture_intermediates=True
    )
    return out, features, state["intermediates"]


def _weights(case: Case) -> Weights:
    settings = case.manifest["settings"]
    label, mask, dice = (float(x) for x in settings["class_mask_dice_weights"])
    return Weights(
        kind="ce",
        label=label,
        mask=mask,
        dice=dice,
        points=settings["train_num_points"],
        cross_frame=0.0,
        no_object=settings["no_object_weight"],
    )


def _config(case: Case) -> ConfigDict:
    settings = case.manifest["settings"]
    swin = dict(name="swin", variant="tiny", drop_path=settings["drop_path_rate"])
    resnet = dict(name="resnet", variant="50")
    model = dict(
        num_classes=settings["num_classes"],
        backbone=swin if "swin" in settings["config"] else resnet,
        pixel_decoder=dict(dim=256, layers=6, heads=8, points=4, mlp_dim=1024),
        mask_decoder=dict(
            kind="m2f_vis",
            dim=256,
            layers=LAYERS,
            heads=8,
            queries=settings["num_queries"],
            mlp_dim=2048,
        ),
    )
    text = dict(compute_dtype="float32", model=model, loss=dict(kind="ce"))
    return ConfigDict(json.loads(json.dumps(text)))

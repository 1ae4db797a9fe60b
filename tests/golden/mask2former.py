"""Our Mask2Former(-VIS) on a stored case: every stored array, in official layout.

Letters: L predictions, one before the first decoder layer and one after each.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from tests.compiled import compiled
from tests.golden.cases import Case, nchw, nhwc
from tests.golden.gradients import official_gradients
from tests.golden.set_losses import (
    LAYERS,
    loss_terms,
    match,
    match_results,
    point_results,
    truth_of_case,
    weights_of_case,
)
from vis_jax.converters.load import convert_tensors
from vis_jax.layers.queries import (
    ClipFeatures,
    DecoderOutput,
    foreground,
    mask_logits,
    resized_features,
)
from vis_jax.ops.bilinear import resize
from vis_jax.settings import read_settings
from vis_jax.systems.ifr import Model, Settings, build_model

_mask_logits, _foreground = compiled(mask_logits), compiled(foreground)
_resize = compiled(resize, static_argnums=1)


class Run(NamedTuple):
    """Output of the model for B clips."""

    out: DecoderOutput
    features: ClipFeatures
    backbone: dict[str, jax.Array]  # [B * T, h, w, C]
    queries: jax.Array  # [L, B, Q, C], what the heads see


def compare(case: Case, *, gradients: bool) -> dict[str, np.ndarray]:
    """Stored outputs and intermediates as we compute them.

    Args:
      case: a Mask2Former or Mask2Former-VIS case.
      gradients: also those of the loss, which compiles the model a second time.
    """
    model, variables = converted(case)
    test, train = run_model(case, model, variables)
    results = forward_results(case, test)
    results |= inference_results(case, results)
    results |= loss_results(case, train)
    if gradients:
        results |= gradient_results(case, model, variables)
    return results


def converted(case: Case) -> tuple[Model, dict]:
    """The model of a case with its weights, by the public converter."""
    model = build_model(settings_of_case(case))
    variables, report = convert_tensors(case.weights(), shapes_of(model), "mask2former")
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return model, variables


@functools.cache
def shapes_of(model: Model) -> dict:
    """Shapes of the model's variables."""
    images = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), jnp.uint8)
    sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    valid = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), images, sizes, valid)


def run_model(case: Case, model: Model, variables: dict) -> tuple[Run, Run]:
    """The model on the stored clips for inference and for training, in one go."""
    test, train = _clips(case, "image"), _clips(case, "train/image")
    both = jax.tree.map(lambda *x: np.concatenate(x), test, train)
    run = jax.device_get(_apply(model, variables, *both))
    clips, frames = test[0].shape[:2]

    def part(first: slice) -> Run:
        cut = slice(*(i and i * frames for i in (first.start, first.stop)))
        return Run(
            jax.tree.map(lambda x: x[:, first], run.out),
            jax.tree.map(lambda x: x[first], run.features),
            jax.tree.map(lambda x: x[cut], run.backbone),
            run.queries[:, first],
        )

    return part(slice(None, clips)), part(slice(clips, None))


def forward_results(case: Case, run: Run) -> dict[str, np.ndarray]:
    """Activations on the stored image."""
    out, features = run.out, run.features
    results = {f"backbone/{name}": nchw(x) for name, x in run.backbone.items()}
    tokens = []
    for i, level in enumerate(features.levels):
        level = np.asarray(level).reshape(-1, *level.shape[2:])
        results[f"pixel_decoder/multi_scale_{i}"] = nchw(level)
        tokens.append(level.reshape(level.shape[0], -1, level.shape[-1]))
    results["pixel_decoder/encoder_output"] = np.concatenate(tokens, axis=1)
    fine = np.asarray(features.mask_features)
    results["pixel_decoder/mask_features"] = nchw(fine.reshape(-1, *fine.shape[2:]))
    small = compiled(resized_features)(features)
    for i in range(LAYERS + 1):
        results[f"decoder/{i}/logits"] = np.asarray(out.class_logits[i])
        results[f"decoder/{i}/query"] = np.asarray(run.queries[i]).swapaxes(0, 1)
        masks = _mask_logits(out.mask_embeds[i], features.mask_features)
        masks = masks.swapaxes(1, 2)  # [B, Q, T, h, w]
        results[f"decoder/{i}/masks"] = masks if _is_video(case) else masks[:, :, 0]
        if i < LAYERS:
            inside = _foreground(out.mask_embeds[i], small[i % 3])
            blocked = ~inside.swapaxes(1, 2)
            blocked = blocked.reshape(*blocked.shape[:2], -1)
            # Stored after the rule that a query without a mask looks everywhere.
            blocked &= ~blocked.all(axis=-1, keepdims=True)
            results[f"decoder/{i}/attn_mask_packed"] = np.packbits(blocked)
    return results


def inference_results(case: Case, forward: dict) -> dict[str, np.ndarray]:
    """Scores, labels and masks at the size of the video, from the last prediction."""
    settings = case.manifest["settings"]
    logits, masks = (forward[f"decoder/{LAYERS}/{x}"] for x in ("logits", "masks"))
    probs = scipy.special.softmax(logits, axis=-1)[..., :-1]
    if _is_video(case):
        order = np.argsort(-probs[0].ravel(), kind="stable")[:10]
        inside = enlarge(masks[0][order // probs.shape[-1]], settings) > 0
        return {
            "inference/scores": probs[0].ravel()[order],
            "inference/labels": order % probs.shape[-1],
            "inference/masks_packed": np.packbits(inside),
            "inference/mask_area": inside.sum(axis=(2, 3)),
        }
    results = {}
    for i, (prob, mask) in enumerate(zip(probs, masks, strict=True)):
        order = np.argsort(-prob.ravel(), kind="stable")[:100]
        logit = enlarge(mask[order // prob.shape[-1]], settings)
        inside = logit > 0
        quality = (scipy.special.expit(logit) * inside).sum(axis=(1, 2))
        quality /= inside.sum(axis=(1, 2)) + 1e-6
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
    x = np.moveaxis(masks, 0, -1)
    if x.ndim == 3:
        x = x[None]
    x = _resize(x, (4 * x.shape[1], 4 * x.shape[2]))[:, :height, :width]
    x = np.moveaxis(_resize(x, tuple(settings["output_size"])), -1, 0)
    return x if masks.ndim == 4 else x[:, 0]


def loss_results(case: Case, run: Run) -> dict[str, np.ndarray]:
    """Matches, points and losses for the stored targets and draws."""
    truth, weights = truth_of_case(case), weights_of_case(case)
    matched = jax.device_get(match(case, run.out, run.features, truth, weights))
    terms = jax.device_get(
        loss_terms(case, run.out, run.features, truth, matched, weights)
    )
    results = {
        "train/logits_final": np.asarray(run.out.class_logits[-1]),
        "loss/total": np.asarray(sum(x.sum() for x in terms.values())),
    }
    for i in range(LAYERS + 1):
        suffix = "" if i == LAYERS else f"_{i}"
        for name, values in terms.items():
            results[f"loss/loss_{name}{suffix}"] = np.asarray(values[i])
    results |= match_results(case, matched)
    results |= point_results(case, run.out, run.features, matched)
    return results


def gradient_results(
    case: Case, model: Model, variables: dict
) -> dict[str, np.ndarray]:
    """Gradients of the summed losses."""
    truth, weights = truth_of_case(case), weights_of_case(case)
    clips = _clips(case, "train/image")

    @jax.jit
    @jax.grad
    def gradient(params):
        out, features = model.apply({**variables, "params": params}, *clips, True)
        fixed = jax.lax.stop_gradient((out, features))
        matched = match(case, *fixed, truth, weights)
        terms = loss_terms(case, out, features, truth, matched, weights)
        return sum(jnp.sum(x) for x in terms.values())

    gradients = {"params": gradient(variables["params"])}
    return official_gradients(case, variables, gradients)


@functools.partial(jax.jit, static_argnums=0)
def _apply(model: Model, variables, images, sizes, valid) -> Run:
    (out, features), state = model.apply(
        variables, images, sizes, valid, False, capture_intermediates=True
    )
    inner = state["intermediates"]
    table = variables["params"]["decoder"]["tables"]["query_feat"]
    queries = [jnp.broadcast_to(table, (len(images), *table.shape))]
    decoder = inner["decoder"]
    queries += [decoder[f"ffn_norm_{i}"]["__call__"][0] for i in range(LAYERS)]
    return Run(out, features, inner["backbone"]["__call__"][0], jnp.stack(queries))


def _clips(case: Case, name: str):
    """Images [B, T, H, W, 3] on the canvas, their sizes, and which frames are real."""
    frames = case.manifest["settings"]["frames"]
    stored = nhwc(case.arrays[name])
    stored = stored.reshape(-1, frames, *stored.shape[1:])
    batch, size = len(stored), stored.shape[2:4]
    pad = [(0, -length % 32) for length in size]
    images = np.pad(stored, ((0, 0), (0, 0), *pad, (0, 0)))
    sizes = np.full((batch, 2), size, np.int32)
    valid = np.ones((batch, frames), bool)
    return images, sizes, valid


def _is_video(case: Case) -> bool:
    return case.manifest["case"].startswith("video")


def settings_of_case(case: Case) -> Settings:
    """The settings of the model of a case."""
    settings = case.manifest["settings"]
    swin = dict(name="swin", variant="tiny", drop_path=settings["drop_path_rate"])
    model = dict(
        num_classes=settings["num_classes"],
        backbone=swin
        if "swin" in settings["config"]
        else dict(name="resnet", variant="50"),
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
    return read_settings(Settings, dict(model=model, loss=dict(kind="ce")))

"""Runs our EoMT on a stored case: every stored array, in official layout.

Letters: A predictions, one before each query block and the final one; B images.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from tests.compiled import RUNS_LONG, compiled
from tests.golden.cases import Case, nhwc
from tests.golden.gradients import official_gradients
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.eomt import QueryPredictions, attend_inside
from vis_jax.layers.vit_block import Block
from vis_jax.losses.clip_queries import ClipTruth, Draws, clip_terms, match_clips
from vis_jax.ops.bilinear import resize
from vis_jax.settings import read_settings
from vis_jax.systems.videomt import Settings, build_model
from vis_jax.systems.videomt_model import Model

_resize = compiled(resize, static_argnums=1)
# Our name of each term, and the official one.
TERMS = {"mask": "loss_mask", "dice": "loss_dice", "label": "loss_cross_entropy"}


def compare(case: Case) -> dict[str, np.ndarray]:
    """Computes the stored outputs and intermediates."""
    settings = settings_of_case(case)
    model, variables = converted(case, settings, "eomt")
    images = jnp.asarray(nhwc(case.arrays["image"]))
    inputs = (images, truth_of_case(case), draws_of_case(case))

    def total(params):
        return _run(model, {"params": params}, inputs, settings.loss)

    run = compiled(jax.value_and_grad(total, has_aux=True), compiler_options=RUNS_LONG)
    (value, (arrays, found, matched, terms)), gradients = run(variables["params"])
    results = {**arrays, "loss/total": value}
    for index in range(len(terms["mask"])):
        results[f"prediction/{index}/logits"] = found.class_logits[index]
        results[f"prediction/{index}/masks"] = found.mask_logits[index]
        for ours, theirs in TERMS.items():
            results[f"loss/{index}/{theirs}"] = terms[ours][index]
        for b, count in enumerate(counts_of_case(case)):
            order = np.argsort(matched[index, b, :count])
            results[f"match/{index}/{b}/query"] = matched[index, b, :count][order]
            results[f"match/{index}/{b}/target"] = order
    results |= inference_results(case, *(x[-1] for x in found))
    return results | official_gradients(case, variables, {"params": gradients}, "eomt")


def converted(case: Case, settings: Settings, kind: str) -> tuple[Model, dict]:
    """Returns the model of a case with its weights, from the public converter."""
    model = build_model(settings)
    variables, report = convert_tensors(case.weights(), shapes_of(model), kind)
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return model, variables


@functools.cache
def shapes_of(model: Model) -> dict:
    """Returns the shapes of the model's variables."""
    side = 2 * model.backbone.patch
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def _forward(model: Model, images: jax.Array):
    """Returns all predictions, the tokens before all blocks and before query blocks."""
    grid = model.backbone.grid(*images.shape[1:3])
    embedded, tokens = model.backbone.embed(images), model.encode(images)
    blocks = model.query_blocks
    masked = jnp.ones((len(images), blocks, model.queries), bool)
    queries = model.first(len(images))
    looked = model.look(queries, tokens, grid, range(blocks), masked)
    last = QueryPredictions(model.classify(looked), model.masks(looked, grid))
    return embedded, tokens, (*looked.early, last)


def _run(model: Model, variables: dict, inputs, weights):
    """Returns the loss and all other stored arrays."""
    images, truth, draws = inputs
    (embedded, tokens, sets), kept = model.apply(
        variables, images, method=_forward, mutable=["intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, Block),
    )  # fmt: skip
    blocks = kept["intermediates"]["backbone"]
    arrays = {"embeddings": embedded, "encoder_output": tokens}
    grid, prefix = model.backbone.grid(*images.shape[1:3]), model.backbone.prefix
    for index, found in enumerate(sets[:-1]):
        number = model.first_block + index
        arrays[f"block/{number}"] = blocks[f"blocks_{number}"]["__call__"][0]
        limited = jnp.ones(found.class_logits.shape[:2], bool)
        attend = attend_inside(found.mask_logits, limited, grid, prefix)
        outside = ~attend[:, : model.queries, model.queries + prefix :]
        arrays[f"block/{number}/blocked_packed"] = jnp.packbits(outside)
    found = QueryPredictions(*(jnp.stack(x) for x in zip(*sets, strict=True)))
    matched, terms = [], []
    for index in range(len(sets)):
        logits, masks = (x[index][:, None] for x in found)
        at = jax.tree.map(lambda x, i=index: x[i], draws)
        pairs = match_clips(logits, masks, truth, at.match, weights)
        matched.append(pairs)
        terms.append(clip_terms(logits, masks, truth, at, pairs, weights))
    terms = jax.tree.map(lambda *x: jnp.stack(x), *terms)
    value = sum(x.sum() for x in terms.values())
    return value, (arrays, found, jnp.stack(matched), terms)


def inference_results(case: Case, logits, masks) -> dict[str, np.ndarray]:
    """Returns the best instances of the first image, and their masks at its size."""
    size = case.manifest["settings"]["image_size"]
    probs = scipy.special.softmax(logits[0], axis=-1)[:, :-1]
    order = np.argsort(-probs.ravel(), kind="stable")
    order = order[: len(case.arrays["inference/class_scores"])]
    queries = order // probs.shape[1]
    maps = _resize(np.moveaxis(masks[0][queries], 0, -1)[None], tuple(size))[0]
    inside = maps > 0
    quality = (scipy.special.expit(maps) * inside).sum(axis=(0, 1))
    quality /= inside.sum(axis=(0, 1)) + 1e-6
    scores = probs.ravel()[order]
    return {
        "inference/class_scores": scores,
        "inference/scores": scores * quality,
        "inference/labels": order % probs.shape[1],
        "inference/queries": queries,
        "inference/mask_area": inside.sum(axis=(0, 1)),
    }


def counts_of_case(case: Case) -> list[int]:
    """Returns the number of instances of each image."""
    batch = case.manifest["settings"]["batch"]
    return [len(case.arrays[f"target/{b}/labels"]) for b in range(batch)]


def truth_of_case(case: Case) -> ClipTruth:
    """Returns the stored targets, padded to the same number of instances."""
    counts = counts_of_case(case)
    height, width = case.arrays["target/0/masks"].shape[1:]
    masks = np.zeros((len(counts), max(counts), 1, height, width), bool)
    labels = np.zeros((len(counts), max(counts)), np.int32)
    present = np.zeros((len(counts), max(counts), 1), bool)
    for b, count in enumerate(counts):
        masks[b, :count, 0] = case.arrays[f"target/{b}/masks"] > 0
        labels[b, :count] = case.arrays[f"target/{b}/labels"]
        present[b, :count] = True
    valid = np.ones((len(counts), 1), bool)
    return ClipTruth(*map(jnp.asarray, (labels, masks, present, valid)))


def draws_of_case(case: Case) -> Draws:
    """Returns the stored draws of each prediction by instance slot: [A, B, ..]."""
    counts = counts_of_case(case)
    batch, sets = len(counts), case.manifest["settings"]["num_blocks"] + 1
    all_sets = []
    for index in range(sets):
        first = index * (batch + 2)
        match = np.stack([case.arrays[f"rand/{first + b:02d}"] for b in range(batch)])
        both = []
        for offset in (0, 1):
            stored = case.arrays[f"rand/{first + batch + offset:02d}"]
            slots = np.zeros((batch, max(counts), 1, *stored.shape[1:]), np.float32)
            for b, part in enumerate(np.split(stored, np.cumsum(counts)[:-1])):
                slots[b, case.arrays[f"match/{index}/{b}/target"], 0] = part
            both.append(slots)
        all_sets.append(Draws(match, *both))
    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *all_sets)


def settings_of_case(case: Case, **model) -> Settings:
    """Returns the settings of a case of a plain transformer.

    Args:
      case: of EoMT, or of VidEoMT, which has a propagation.
      **model: fields of `model` in addition to the case's.
    """
    stored = case.manifest["settings"]
    label, mask, dice = (
        float(x) for x in stored.get("class_mask_dice_weights", (2, 5, 5))
    )
    table = dict(form="dinov3")
    if "rope_theta" not in stored:
        table = dict(table=stored["image_size"][0] // stored["patch_size"])
    backbone = dict(
        dim=stored["hidden_size"],
        depth=stored["num_hidden_layers"],
        heads=stored["num_attention_heads"],
        patch=stored["patch_size"],
        registers=stored["num_register_tokens"],
        **table,
    )
    model = dict(
        num_classes=stored["num_classes"],
        backbone=backbone,
        queries=stored["num_queries"],
        decoder=dict(blocks=stored["num_blocks"]),
        propagation=stored.get("query_propagation", "none"),
        norm_queries=stored.get("norm_queries", False),
        **model,
    )
    image = model["propagation"] == "none"
    loss = dict(
        label=label,
        mask=mask,
        dice=dice,
        points=stored.get("train_num_points", 12_544),
        no_object=stored.get("no_object_weight", 0.1),
        aux_norm=image,
        aux_last=True,
    )
    return read_settings(Settings, dict(model=model, loss=loss))

"""The losses of a stored Mask2Former(-VIS) case at its stored random draws.

Letters: L predictions, M instance slots of a clip, S sources of a mask (one).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.golden.cases import Case
from vis_jax.layers.queries import ClipFeatures, DecoderOutput, mask_logits
from vis_jax.losses.classification import weighted_cross_entropy
from vis_jax.losses.set_loss import CrossEntropy, SetTruth, mask_terms_at, match_cost_at
from vis_jax.ops.assignment import hungarian
from vis_jax.ops.sampling import uncertain_points

LAYERS = 9


def match(
    case: Case,
    out: DecoderOutput,
    features: ClipFeatures,
    truth: SetTruth,
    weights: CrossEntropy,
) -> jax.Array:
    """Query of every instance: int32 [L, B, M]."""
    batch = len(_counts(case))
    points = [
        [case.arrays[_draw_name(i, b, batch)][0] for b in range(batch)]
        for i in range(LAYERS + 1)
    ]
    return _match(out, features, truth, jnp.asarray(points), weights)


@functools.partial(jax.jit, static_argnums=4)
def _match(out, features, truth, points, weights):
    cost = jax.vmap(match_cost_at, (0, 0, 0, 0, 0, None))  # clips
    cost = jax.vmap(cost, (0, 0, None, None, 0, None))  # predictions
    fine = features.mask_features
    costs = cost(out.class_logits, out.mask_embeds, fine, truth, points, weights)
    return jax.vmap(jax.vmap(hungarian), (0, None))(costs, truth.valid)


def loss_terms(
    case: Case,
    out: DecoderOutput,
    features: ClipFeatures,
    truth: SetTruth,
    matched: jax.Array,
    weights: CrossEntropy,
) -> dict[str, jax.Array]:
    """Weighted terms of every prediction: 'ce', 'mask' and 'dice', [L] each."""
    return _loss_terms(out, features, truth, matched, _loss_draws(case), weights)


@functools.partial(jax.jit, static_argnums=5)
def _loss_terms(out, features, truth, matched, draws, weights):
    queries, outputs = out.class_logits.shape[2:]

    def targets(matched, labels, valid):
        empty = jnp.full((queries,), outputs - 1, jnp.int32)
        index = jnp.where(valid, matched, queries)
        return empty.at[index].set(labels, mode="drop")

    by_clip = jax.vmap(targets)
    labels = jax.vmap(by_clip, (0, None, None))(matched, truth.labels, truth.valid)
    per_set = jax.vmap(weighted_cross_entropy, (0, 0, None))
    terms = jax.vmap(mask_terms_at, (0, 0, 0, 0, 0, None))  # clips
    terms = jax.vmap(terms, (0, 0, None, None, 0, None))  # predictions
    fine = features.mask_features
    masks = terms(out.mask_embeds, matched, fine, truth, draws, 0.0).sum(axis=1)
    mask, dice = masks.T / truth.valid.sum().astype(jnp.float32)
    return {
        "ce": weights.label * per_set(out.class_logits, labels, weights.no_object),
        "mask": weights.mask * mask,
        "dice": weights.dice * dice,
    }


def match_results(case: Case, matched: jax.Array) -> dict[str, np.ndarray]:
    """Pairs of every layer, sorted by query, as SciPy returns them."""
    results = {}
    for layer, of_layer in enumerate(np.asarray(matched)):
        for b, count in enumerate(_counts(case)):
            order = np.argsort(of_layer[b, :count])
            results[f"match/{layer}/{b}/query"] = of_layer[b, :count][order]
            results[f"match/{layer}/{b}/target"] = order
    return results


def point_results(
    case: Case, out: DecoderOutput, features: ClipFeatures, matched: jax.Array
) -> dict[str, np.ndarray]:
    """Final points of the mask losses, sorted by x, in the official order."""
    points = _points(out, features, matched, _loss_draws(case))
    results = {}
    for layer, of_layer in enumerate(np.asarray(points)):
        ordered = [
            of_layer[b, target]
            for b in range(of_layer.shape[0])
            for target in case.arrays[f"match/{layer}/{b}/target"]
        ]
        ordered = np.concatenate(ordered)  # instances x frames
        order = np.argsort(ordered[..., 0], axis=1, kind="stable")
        ordered = np.take_along_axis(ordered, order[..., None], axis=1)
        results[f"points/{layer}"] = ordered
    return results


@jax.jit
def _points(out, features, matched, draws):
    embeds = jnp.take_along_axis(out.mask_embeds, matched[:, :, None, :, None], axis=3)
    fine = jnp.broadcast_to(
        features.mask_features, (len(embeds), *features.mask_features.shape)
    )
    logits = jnp.moveaxis(mask_logits(embeds, fine), 3, 2)  # [L, B, M, T, h, w]
    choose = uncertain_points
    for _ in range(4):
        choose = jax.vmap(choose)
    return choose(logits, *(x[:, :, :, 0] for x in draws))


def _loss_draws(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Stored draws of the mask losses by instance slot: [L, B, M, S, T, N, 2]."""
    counts, frames = _counts(case), case.manifest["settings"]["frames"]
    both = []
    for offset in (0, 1):
        layers = []
        for layer in range(LAYERS + 1):
            name = _draw_name(layer, len(counts) + offset, len(counts))
            stored = case.arrays[name]
            stored = stored.reshape(-1, frames, *stored.shape[1:])
            slots = np.zeros((len(counts), max(counts), 1, *stored.shape[1:]), "f4")
            parts = np.split(stored, np.cumsum(counts)[:-1])
            for b, part in enumerate(parts):
                slots[b, case.arrays[f"match/{layer}/{b}/target"], 0] = part
            layers.append(slots)
        both.append(np.stack(layers))
    return tuple(both)


def _draw_name(layer: int, index: int, batch: int) -> str:
    """Name of a stored draw: the last layer comes first, then 0 to 8."""
    number = ((layer + 1) % (LAYERS + 1)) * (batch + 2) + index
    return f"rand/{number:02d}"


def _counts(case: Case) -> list[int]:
    """Instances of each clip."""
    names = [n for n in case.arrays if n.startswith("train/") and n.endswith("labels")]
    return [len(case.arrays[name]) for name in sorted(names)]


def truth_of_case(case: Case) -> SetTruth:
    """The stored targets on the canvas, padded to one number of instances."""
    counts, settings = _counts(case), case.manifest["settings"]
    canvas = [-(-length // 32) * 32 for length in settings["input_size"]]
    shape = (len(counts), max(counts), settings["frames"], *canvas)
    masks, labels = np.zeros(shape, bool), np.zeros(shape[:2], np.int32)
    for b, count in enumerate(counts):
        stored = case.arrays[f"train/{b}/masks"]
        masks[b, :count, :, : stored.shape[2], : stored.shape[3]] = stored
        labels[b, :count] = case.arrays[f"train/{b}/labels"]
    valid = np.arange(max(counts))[None] < np.array(counts)[:, None]
    frame_valid = np.ones((len(counts), settings["frames"]), bool)
    return SetTruth(*map(jnp.asarray, (labels, masks, valid, frame_valid)))


def weights_of_case(case: Case) -> CrossEntropy:
    """The stored settings of the loss."""
    settings = case.manifest["settings"]
    label, mask, dice = (float(x) for x in settings["class_mask_dice_weights"])
    return CrossEntropy(
        label=label,
        mask=mask,
        dice=dice,
        points=settings["train_num_points"],
        no_object=settings["no_object_weight"],
    )

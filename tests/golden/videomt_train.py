"""The training of our VidEoMT on a stored clip: every stored array.

Letters: A predictions, those before the query blocks first and the final one last.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import RUNS_LONG, compiled
from tests.golden.cases import Case, nhwc
from tests.golden.eomt import converted, settings_of_case
from tests.golden.gradients import official_gradients
from vis_jax.detectors.eomt import QueryPredictions
from vis_jax.losses.clip_queries import ClipTruth, Draws, clip_terms, match_clips
from vis_jax.systems.videomt_loss import look_and_carry
from vis_jax.systems.videomt_model import Model

TERMS = {"mask": "loss_mask", "dice": "loss_dice", "label": "loss_ce"}


def compare(case: Case) -> dict[str, np.ndarray]:
    """Stored outputs as we compute them."""
    settings = settings_of_case(case)
    loss = dataclasses.replace(settings.loss, aux_norm=False)
    settings = dataclasses.replace(settings, loss=loss)
    model, variables = converted(case, settings, "videomt")
    frames = jnp.asarray(nhwc(case.arrays["frames"]))
    truth, draws = truth_of_case(case), draws_of_case(case)

    def total(params):
        found, entered, embedded = clip(model, {"params": params}, frames)
        value, rest = _losses(found, truth, draws, loss)
        return value, (found, entered, embedded, rest)

    run = compiled(jax.value_and_grad(total, has_aux=True), compiler_options=RUNS_LONG)
    (value, aux), gradients = run(variables["params"])
    found, entered, embedded, (matched, terms) = aux
    names = [*map(str, range(settings.model.decoder.blocks)), "final"]
    logits, masks = (x[:, :, 0] for x in found)  # [A, T, Q, ..]
    results = {
        "embeddings": embedded,
        "eval/logits": logits[-1],
        "eval/masks": masks[-1].swapaxes(0, 1),
        "eval/carried": entered[0],
        "loss/total": value,
        "norm_queries/logits": _with_norm(case, variables, frames),
    }
    for index, name in enumerate(names):
        results[f"aux/{name}/logits"] = logits[index]
        results[f"aux/{name}/masks"] = masks[index]
        for ours, theirs in TERMS.items():
            results[f"loss/{name}/{theirs}"] = terms[ours][index]
        stored = case.arrays[f"match/{name}/target"]
        results[f"match/{name}/target"] = stored
        results[f"match/{name}/query"] = matched[index, 0][stored]
    gradients = {"params": gradients}
    return results | official_gradients(case, variables, gradients, "videomt")


def clip(model: Model, variables: dict, frames: jax.Array):
    """Returns a clip's predictions [A, T, 1, Q, ..], propagated queries, tokens."""
    grid = model.backbone.grid(*frames.shape[1:3])
    embedded, tokens = model.apply(variables, frames, method=_encode)

    def frame(entered, tokens):
        looked, found, after = look_and_carry(
            model, variables, entered, tokens[None], grid,
            early=range(model.query_blocks),
        )  # fmt: skip
        sets = (*looked.early, found)
        return after, jax.tree.map(lambda *x: jnp.stack(x), *sets)

    begin = model.apply(variables, 1, method=Model.first)
    entered, found = jax.lax.scan(frame, begin, tokens)
    return QueryPredictions(*(x.swapaxes(0, 1) for x in found)), entered, embedded


def _encode(model: Model, images: jax.Array):
    return model.backbone.embed(images), model.encode(images)


def _with_norm(case: Case, variables: dict, frames: jax.Array) -> np.ndarray:
    """Returns the last frame's class logits if queries pass through the final norm."""
    settings = settings_of_case(case)
    normed = dataclasses.replace(settings.model, norm_queries=True)
    model = converted(case, dataclasses.replace(settings, model=normed), "videomt")[0]
    run = compiled(
        lambda variables: clip(model, variables, frames)[0].class_logits[-1, -1, 0],
        compiler_options=RUNS_LONG,
    )
    return run(variables)


def _losses(found: QueryPredictions, truth: ClipTruth, draws: Draws, weights):
    """The official total, which lacks the prediction before the last block."""
    matched, terms = [], []
    for index in range(len(found.class_logits)):
        logits, masks = (x[index].swapaxes(0, 1) for x in found)
        at = jax.tree.map(lambda x, i=index: x[i], draws)
        pairs = match_clips(logits, masks, truth, at.match, weights)
        matched.append(pairs)
        terms.append(clip_terms(logits, masks, truth, at, pairs, weights))
    dropped = len(terms) - 2
    value = sum(sum(x.values()) for i, x in enumerate(terms) if i != dropped)
    terms = jax.tree.map(lambda *x: jnp.stack(x), *terms)
    return value, (jnp.stack(matched), terms)


def truth_of_case(case: Case) -> ClipTruth:
    """The stored targets of the clip."""
    masks = case.arrays["target/masks"][None] > 0
    labels = case.arrays["target/labels"][None].astype(np.int32)
    present = case.arrays["target/ids"][None] >= 0
    valid = np.ones((1, masks.shape[2]), bool)
    return ClipTruth(*map(jnp.asarray, (labels, masks, present, valid)))


def draws_of_case(case: Case) -> Draws:
    """The stored draws: [A, 1, ..], those of the final prediction last."""
    sets = case.manifest["settings"]["num_blocks"] + 1
    here = case.arrays["target/ids"] >= 0  # [M, T]
    objects, frames = here.shape
    first = np.where(here.any(axis=1), here.argmax(axis=1), -1)
    begins = sorted(set(first[first >= 0]))
    number, all_sets = 0, []
    for name in ("final", *range(sets - 1)):
        points = case.manifest["settings"]["train_num_points"]
        match = np.zeros((1, frames, points, 2), np.float32)
        for t in begins:
            match[0, t] = case.arrays[f"rand/{number:02d}"][0]
            number += 1
        order = case.arrays[f"match/{name}/target"]
        both = []
        for _ in range(2):
            stored = case.arrays[f"rand/{number:02d}"]
            number += 1
            # Frames outside, pairs in the order of the match inside.
            by_frame = stored.reshape(frames, len(order), *stored.shape[1:])
            slots = np.zeros((1, objects, frames, *stored.shape[1:]), np.float32)
            slots[0, order] = by_frame.swapaxes(0, 1)
            both.append(slots)
        all_sets.append(Draws(match, *both))
    all_sets = [*all_sets[1:], all_sets[0]]
    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *all_sets)

"""Our VidEoMT on a stored clip: every stored array, in official layout."""

import jax
import numpy as np
import scipy.special

from tests.compiled import RUNS_LONG, compiled
from tests.golden.cases import Case, nchw, nhwc
from tests.golden.eomt import converted, settings_of_case
from vis_jax.detectors.eomt import Heads
from vis_jax.layers.vit_block import Block
from vis_jax.ops.bilinear import resize
from vis_jax.systems.videomt_model import Model

_resize = compiled(resize, static_argnums=1)


def compare(case: Case) -> dict[str, np.ndarray]:
    """Stored outputs and intermediates of inference, the frames one after the other."""
    model, variables = converted(case, settings_of_case(case), "videomt")
    clips = nhwc(case.arrays["frames"])  # [B, T, H, W, 3]
    batch, frames = clips.shape[:2]
    grid = model.backbone.grid(*clips.shape[2:4])
    encode = compiled(
        lambda variables, x: model.apply(variables, x, method=_encode),
        compiler_options=RUNS_LONG,
    )
    embedded, tokens = encode(variables, clips.reshape(-1, *clips.shape[2:]))
    results = {"embeddings": embedded, "encoder_output": tokens}
    tokens = tokens.reshape(batch, frames, *tokens.shape[1:])
    look = compiled(lambda *x: _look(model, *x, grid), compiler_options=RUNS_LONG)
    query = np.asarray(variables["params"]["query"])
    entered = np.broadcast_to(query, (batch, *query.shape))
    by_frame = []
    for t in range(frames):
        found, blocks, entered_next = look(variables, entered, tokens[:, t])
        results[f"frame/{t}/queries_in"] = entered
        results[f"frame/{t}/queries_out"] = found["queries"]
        for number, x in blocks.items():
            results[f"frame/{t}/block/{number}"] = x
        by_frame.append(found)
        entered = entered_next
    last = by_frame[-1]
    results["mask_features"] = nchw(last["pixels"])
    results["mask_embeddings"] = last["embeds"]
    results["logits"] = np.stack([x["logits"] for x in by_frame])
    results["masks"] = np.stack([x["masks"] for x in by_frame])
    normed = np.stack([x["normed"] for x in by_frame])
    results["last_hidden_state"] = normed.reshape(-1, *normed.shape[2:])
    if "inference/scores" not in case.arrays:  # the case of the tests is kept small
        return results
    return results | inference_results(case, results["logits"], results["masks"])


def _encode(model: Model, images: jax.Array):
    return model.backbone.embed(images), model.encode(images)


def _look(model: Model, variables: dict, entered, tokens, grid):
    """Processes a frame: predictions, tokens after query blocks, propagated queries."""
    (found, after), kept = model.apply(
        variables, entered, tokens, grid, method=_frame, mutable=["intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, Block),
    )  # fmt: skip
    inner = kept["intermediates"]["backbone"]
    numbers = range(model.first_block, model.first_block + model.query_blocks)
    blocks = {n: inner[f"blocks_{n}"]["__call__"][0] for n in numbers}
    normed = model.apply(variables, blocks[numbers[-1]], method=Model.norm)
    return found | {"normed": normed}, blocks, after


def _frame(model: Model, entered, tokens, grid):
    looked = model.look(entered, tokens, grid)
    heads: Heads = model.heads
    norm = model.backbone.norm
    found = {
        "queries": looked.queries,
        "logits": model.classify(looked),
        "masks": model.masks(looked, grid),
        "pixels": heads.pixels(norm(looked.patches), grid),
        "embeds": heads.mask_head(norm(looked.queries)),
    }
    return found, model.carry(looked, entered)


def inference_results(case: Case, logits, masks) -> dict[str, np.ndarray]:
    """The best (query, class) pairs of the first video, and their masks.

    Args:
      case: says the sizes.
      logits: [T, B, Q, K + 1].
      masks: [T, B, Q, h, w].
    """
    settings = case.manifest["settings"]
    mean = logits[:, 0].mean(axis=0)
    probs = scipy.special.softmax(mean, axis=-1)[:, :-1]
    order = np.argsort(-probs.ravel(), kind="stable")[: settings["top_k"]]
    queries = order // probs.shape[1]
    height, width = settings["content"]
    maps = np.moveaxis(masks[:, 0][:, queries], 1, -1)  # [T, h, w, N]
    maps = _resize(maps, tuple(settings["image_size"]))[:, :height, :width]
    inside = np.moveaxis(_resize(maps, tuple(settings["output"])), -1, 0) > 0
    return {
        "inference/mean_logits": mean,
        "inference/scores": probs.ravel()[order],
        "inference/labels": order % probs.shape[1],
        "inference/queries": queries,
        "inference/mask_area": inside.sum(axis=(2, 3)),
        "inference/masks_packed": np.packbits(inside),
    }

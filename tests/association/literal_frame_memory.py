"""The association block of IAI over the frames of a video: loops, in float64.

It follows the description of the released code: memories are growing lists, the first
frame runs twice, and a token attends to one key after the other. There are no batches,
slots or padding. Weights are our parameters by path.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tests.layers.literal_ffn import Weights, each, gated_ffn, linear
from tests.ops.literal_window import look


class Remembered(NamedTuple):
    """Keys and values (h, w, C) of a frame."""

    keys: np.ndarray
    values: np.ndarray


@dataclass
class Video:
    """Memory of a video; `frames` lists those in the global memory."""

    step: int = 0
    last: int = 0
    everything: list[Remembered] = field(default_factory=list)
    before: Remembered | None = None
    frames: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Form:
    """Sizes and switches of the block."""

    self_heads: int = 4
    memory_heads: int = 2
    use_local: bool = True
    use_global: bool = True
    stride: int = 4
    interval: int | None = 3
    on_new: bool = True


def forward(
    weights: Weights, form: Form, features: np.ndarray, video: Video
) -> np.ndarray:
    """Returns (h, w, E) features [projected, block, class] of the next frame."""
    projected = each(lambda x: linear(weights, "encoder_projector", x), features)
    pieces = [projected, block(weights, form, projected, video, None)[0]]
    if "backbone_projector/kernel" in weights:
        pieces.append(
            each(lambda x: linear(weights, "backbone_projector", x), features)
        )
    return np.concatenate(pieces, axis=-1)


def advance(
    weights: Weights,
    form: Form,
    features: np.ndarray,
    video: Video,
    *,
    ids: np.ndarray,
    new: bool,
) -> None:
    """Adds the frame to the memories, once its id map (H, W) is known."""
    projected = each(lambda x: linear(weights, "encoder_projector", x), features)
    # For the first frame this is the second run: without memories, with its ids.
    first = video.step == 0
    _, keys, normed = block(weights, form, projected, video, ids if first else None)
    embeds = id_bank(weights, ids, form.stride)
    remember(video, form, Remembered(keys, _values(weights, normed, embeds)), new)


def remember(video: Video, form: Form, frame: Remembered, new: bool) -> None:
    """Updates the memories, section C3."""
    video.step += 1
    video.before = frame
    enters = video.step == 1
    if not enters:
        due = form.interval is not None and video.step - video.last >= form.interval
        enters = due or (new and form.on_new)
        video.last = video.step if enters else video.last
    if enters:
        video.everything.append(frame)
        video.frames.append(video.step - 1)


def block(
    weights: Weights,
    form: Form,
    x: np.ndarray,
    video: Video,
    ids: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns output, keys and normalised tokens, each (h, w, C).

    Args:
      x: tokens.
      video: the previous frames.
      ids: of a first frame, once they are known.
    """
    height, width, C = x.shape
    u = each(lambda t: layer_norm(weights, "block/self_norm", t), x)
    placed = u + positions(height, width, C)
    name = "block/self_attention"
    q, k = (each(lambda t, n=n: linear(weights, n, t), placed) for n in
            (f"{name}/query", f"{name}/key"))  # fmt: skip
    v = each(lambda t: linear(weights, f"{name}/value", t), u)
    found = attention(q, [Remembered(k, v)], form.self_heads)
    x = x + each(lambda t: linear(weights, f"{name}/out", t), found)
    normed = each(lambda t: layer_norm(weights, "block/memory_norm", t), x)
    keys = each(lambda t: linear(weights, "block/key", t), normed)
    everything, before = video.everything, video.before
    if before is None:
        blank = np.full((height * form.stride, width * form.stride), 255)
        embeds = id_bank(weights, blank if ids is None else ids, form.stride)
        before = Remembered(keys, _values(weights, normed, embeds))
        everything = [before]
    if form.use_global:
        found = attention(keys, everything, form.memory_heads)
        x = x + each(lambda t: linear(weights, "block/global_out", t), found)
    if form.use_local:
        x = x + window(weights, form, keys, before)
    closing = each(lambda t: layer_norm(weights, "block/ffn_norm", t), x)
    ffn = {n.removeprefix("block/ffn/"): w for n, w in weights.items()}
    x = x + gated_ffn(ffn, closing)
    out = each(lambda t: layer_norm(weights, "block/out_norm", t), x)
    return out, keys, normed


def _values(weights: Weights, normed: np.ndarray, embeds: np.ndarray) -> np.ndarray:
    return each(lambda t: linear(weights, "block/value", t), normed + embeds)


def attention(queries: np.ndarray, frames: list[Remembered], heads: int) -> np.ndarray:
    """Attends to the tokens of several frames; returns (h, w, C)."""
    C = queries.shape[-1]
    keys = np.concatenate([frame.keys.reshape(-1, C) for frame in frames])
    values = np.concatenate([frame.values.reshape(-1, C) for frame in frames])
    d = C // heads

    def of_token(query):
        found = []
        for head in range(heads):
            own = slice(head * d, (head + 1) * d)
            logits = [query[own] @ key[own] / math.sqrt(d) for key in keys]
            powers = np.exp(np.array(logits) - max(logits))
            found.append(powers @ values[:, own] / powers.sum())
        return np.concatenate(found)

    return each(of_token, queries)


def window(
    weights: Weights, form: Form, queries: np.ndarray, before: Remembered
) -> np.ndarray:
    """Attends to the window in the previous frame; returns (h, w, C)."""
    name, heads = "block/local_attention", form.memory_heads
    height, width, C = queries.shape
    shape = height, width, heads, C // heads
    q, k, v = (x.reshape(shape) for x in (queries, *before))
    kernel, bias = weights[f"{name}/relative_kernel"], weights[f"{name}/relative_bias"]
    relative = np.zeros((height, width, *bias.shape))
    for y, x, head, place in np.ndindex(relative.shape):
        product = q[y, x, head] @ kernel[head, place]
        relative[y, x, head, place] = product + bias[head, place]
    found = np.zeros((height, width, C))
    for y, x in np.ndindex(height, width):
        value_bias = weights[f"{name}/value_bias"]
        found[y, x] = look(q, k, v, relative, value_bias, place=(y, x)).reshape(-1)
    return each(lambda t: linear(weights, f"{name}/out", t), found)


def id_bank(weights: Weights, ids: np.ndarray, stride: int) -> np.ndarray:
    """Returns embeddings (h, w, C) of an id map (H, W); unknown ids are ignored."""
    kernel, bias = weights["id_bank/kernel"], weights["id_bank/bias"]
    height, width = ids.shape
    found = np.zeros((-(-height // stride), -(-width // stride), len(bias))) + bias
    for i, j in np.ndindex(found.shape[:2]):
        for a, b in np.ndindex(*kernel.shape[:2]):
            y, x = stride * i - stride // 2 + a, stride * j - stride // 2 + b
            if 0 <= y < height and 0 <= x < width and ids[y, x] < kernel.shape[2]:
                found[i, j] += kernel[a, b, ids[y, x]]
    return found


def layer_norm(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """Normalises one token."""
    normed = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
    return normed * weights[f"{name}/scale"] + weights[f"{name}/bias"]


def positions(height: int, width: int, C: int) -> np.ndarray:
    """Returns (h, w, C): half of the channels by row, half by column; 0 to 2 pi."""
    found = np.zeros((height, width, C))
    half = C // 2
    for y, x, c in np.ndindex(found.shape):
        at, length, i = (y, height, c) if c < half else (x, width, c - half)
        angle = at / (length - 1 + 1e-6) * 2 * math.pi
        angle /= 10_000 ** (2 * (i // 2) / half)
        found[y, x, c] = math.cos(angle) if i % 2 else math.sin(angle)
    return found

"""Parts of a query decoder in NumPy and float64, in the papers' notation."""

import jax
import numpy as np

EPSILON = 1e-5


def noisy(shapes, seed=0):
    """Draws random values for all parameters, including those initialised to 0 or 1."""
    rng = np.random.default_rng(seed)

    def draw(path, x):
        values = rng.normal(size=x.shape).astype(np.float32)
        if path[-1].key == "scale":
            return 1 + values / 4
        return values * np.float32(1.5 / np.sqrt(x.shape[0]))

    return jax.tree_util.tree_map_with_path(draw, shapes)


def double(variables):
    """Converts the parameters to float64, as nested dicts."""
    if hasattr(variables, "items"):
        return {name: double(value) for name, value in variables.items()}
    return np.asarray(variables, np.float64)


def norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return (
        x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * p["scale"] + p["bias"]
    )


def attention(p, query, key, value, attend=None):
    """Multi-head attention of [Q, C] over [K, C]; attend [Q, K]."""
    q, k, v = (
        np.einsum("nc,chd->hnd", x, p[name]["kernel"]) + p[name]["bias"][:, None]
        for name, x in (("query", query), ("key", key), ("value", value))
    )
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights = weights if attend is None else weights * attend[None]
    weights = weights / weights.sum(-1, keepdims=True)
    return np.einsum("hnd,hdc->nc", weights @ v, p["out"]["kernel"]) + p["out"]["bias"]


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def feed_forward(p, x):
    return dense(p["linear2"], np.maximum(dense(p["linear1"], x), 0))


def classify(p, x):
    return dense(p["class_embed"], norm(p["decoder_norm"], x))


def embed(p, x):
    x = norm(p["decoder_norm"], x)
    x = np.maximum(dense(p["mask_embed"]["layers_0"], x), 0)
    x = np.maximum(dense(p["mask_embed"]["layers_1"], x), 0)
    return dense(p["mask_embed"]["layers_2"], x)


def sine(length, dim, extent=None):
    position = (np.arange(length)[:, None] + 1) / ((extent or length) + 1e-6)
    channel = np.arange(dim)
    angle = 2 * np.pi * position / 10_000 ** (2 * (channel // 2) / dim)
    return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))


def sine_2d(height, width, dim):
    rows = np.repeat(sine(height, dim // 2)[:, None], width, axis=1)
    columns = np.repeat(sine(width, dim // 2)[None], height, axis=0)
    return np.concatenate([rows, columns], -1)


def resize(x, size):
    """Resizes [.., h, w] bilinearly with half-pixel centres."""

    def weights(source, target):
        at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        return np.maximum(1 - np.abs(at[:, None] - np.arange(source)), 0)

    rows, columns = weights(x.shape[-2], size[0]), weights(x.shape[-1], size[1])
    return rows @ x @ columns.T


def foreground(embeds, features, size):
    """Returns bool [Q, S]: the resized stride-4 mask is not negative."""
    masks = np.einsum("qc,hwc->qhw", embeds, features)
    return resize(masks, size).reshape(len(embeds), -1) >= 0

"""IFR, and the Mask2Former-VIS baseline it extends.

You et al., "Consistent Video Instance Segmentation with Inter-Frame Recurrent
Attention", 2022. Frames pass the backbone and the pixel decoder one by one; a query
decoder (`model.mask_decoder.kind`: "ifr" or "m2f_vis") turns the whole clip into
instances; set prediction trains it; at test time the whole video is one clip.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vis_jax.association.frame_queries import FrameDecoder
from vis_jax.backbones import BACKBONES
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.mask_decoder import ClipDecoder
from vis_jax.detectors.pixel_decoder import PixelDecoder
from vis_jax.layers.queries import ClipFeatures, DecoderOutput
from vis_jax.losses.set_loss import Weights, set_loss, truth_of
from vis_jax.structures import Batch, Clip, LossAux, Predictions
from vis_jax.systems.system import System

FOCAL_PRIOR = 0.01  # probability that every class starts from, as in RetinaNet


class Model(nn.Module):
    """Backbone, pixel decoder and query decoder."""

    backbone: nn.Module
    pixel_decoder: nn.Module
    decoder: nn.Module
    style: str

    def features(self, images, sizes, train: bool) -> ClipFeatures:
        """Pixel features of clips [B, T, H, W, 3], frame by frame."""
        batch, frames = images.shape[:2]
        pixels = jax.vmap(functools.partial(normalize, style=self.style))
        flat = pixels(images, sizes).reshape(batch * frames, *images.shape[2:])
        out = self.pixel_decoder(self.backbone(flat, train))

        def unflatten(x):
            return x.reshape(batch, frames, *x.shape[1:])

        return ClipFeatures(
            tuple(unflatten(x) for x in out.levels), unflatten(out.mask_features)
        )

    def decode(self, features: ClipFeatures, frame_valid) -> DecoderOutput:
        """Predictions of every layer."""
        return self.decoder(features, frame_valid)

    def __call__(self, images, sizes, frame_valid, train: bool):
        """Predictions of every layer, and the features they are made from."""
        features = self.features(images, sizes, train)
        return self.decode(features, frame_valid), features


def build(config: ConfigDict) -> System:
    """The system of a config; see `configs/ifr_r50.py` for its fields.

    Raises:
      ValueError: a choice by name is unknown.
    """
    model = build_model(config)
    weights = _weights(config)
    test = config.test

    def init(rng, batch: Batch):
        inputs = (batch.images, batch.sizes, batch.frame_valid)
        return model.init(rng, *inputs, False)

    def loss(variables, batch: Batch, rng):
        drop, points = jax.random.split(rng)
        inputs = (batch.images, batch.sizes, batch.frame_valid)
        rngs = {"drop_path": drop}
        out, features = model.apply(variables, *inputs, True, rngs=rngs)
        terms = set_loss(
            out.class_logits,
            out.mask_embeds,
            features.mask_features,
            truth_of(batch),
            points,
            weights,
        )
        return sum(terms.values()), LossAux(terms, {})

    def start():
        return ()

    def step(variables, tracks, clip: Clip):
        features = _video_features(model, variables, clip, test.chunk)
        valid = clip.frame_valid[None]
        out = model.apply(variables, features, valid, method=Model.decode)
        return tracks, _predict(out, features, weights.kind, test.top)

    return System(init, loss, start, step)


def build_model(config: ConfigDict) -> Model:
    """The network of a config."""
    dtype = jnp.dtype(config.compute_dtype)
    model = config.model
    backbone = dict(model.backbone)
    name = backbone.pop("name")
    _check_choice("model.backbone.name", name, BACKBONES)
    return Model(
        BACKBONES[name](**backbone, dtype=dtype),
        PixelDecoder(**dict(model.pixel_decoder), dtype=dtype),
        _build_decoder(config, dtype),
        backbone.get("style", "torch"),
    )


def _build_decoder(config: ConfigDict, dtype):
    decoder = dict(config.model.mask_decoder)
    kind = decoder.pop("kind")
    _check_choice("model.mask_decoder.kind", kind, ("ifr", "m2f_vis"))
    _check_choice("loss.kind", config.loss.kind, ("focal", "ce"))
    classes = config.model.num_classes
    if classes < 1:
        raise ValueError(f"model.num_classes: expected at least 1, got {classes}")
    focal = config.loss.kind == "focal"
    shared = dict(
        outputs=classes + (not focal),
        prior=FOCAL_PRIOR if focal else None,
        dtype=dtype,
    )
    if kind == "ifr":
        recurrence = dict(config.model.frame_queries)
        return FrameDecoder(**decoder, **recurrence, **shared)
    return ClipDecoder(**decoder, **shared)


def _weights(config: ConfigDict) -> Weights:
    if config.model.mask_decoder.kind == "m2f_vis" and config.loss.cross_frame:
        raise ValueError(
            "loss.cross_frame: expected 0.0 with model.mask_decoder.kind 'm2f_vis',"
            f" whose queries belong to no frame, got {config.loss.cross_frame}"
        )
    return Weights(**dict(config.loss))


def _check_choice(field: str, value: str, choices) -> None:
    if value not in choices:
        raise ValueError(f"{field}: expected one of {sorted(choices)}, got {value!r}")


def _video_features(model, variables, clip: Clip, chunk: int) -> ClipFeatures:
    """Features of one video, batch axis 1; `chunk` frames at a time bound memory."""

    def of(images):
        return model.apply(
            variables, images[None], clip.size[None], False, method=Model.features
        )

    frames = clip.images.shape[0]
    if frames <= chunk:
        return of(clip.images)
    padding = -frames % chunk
    images = jnp.pad(clip.images, ((0, padding), *[(0, 0)] * 3))
    out = jax.lax.map(of, images.reshape(-1, chunk, *images.shape[1:]))
    return jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[3:])[:, :frames], out)


def _predict(out: DecoderOutput, features: ClipFeatures, kind: str, top: int):
    """The `top` best (query, class) pairs; a query may appear with several classes."""
    logits = out.class_logits[-1, 0]
    probs = jax.nn.sigmoid(logits)
    if kind == "ce":
        probs = jax.nn.softmax(logits, axis=-1)[:, :-1]
    classes = probs.shape[-1]
    scores, pairs = jax.lax.top_k(probs.reshape(-1), min(top, probs.size))
    embeds = out.mask_embeds[-1, 0][:, pairs // classes]
    mask_logits = jnp.einsum(
        "tnc,thwc->nthw", embeds, features.mask_features[0].astype(jnp.float32)
    )
    return Predictions(
        labels=(pairs % classes).astype(jnp.int32),
        scores=scores,
        track_ids=jnp.arange(1, scores.shape[0] + 1, dtype=jnp.int32),
        valid=jnp.ones(scores.shape, bool),
        mask_logits=mask_logits,
    )

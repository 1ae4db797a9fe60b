"""IFR, and the Mask2Former-VIS baseline it extends.

You et al., "Consistent Video Instance Segmentation with Inter-Frame Recurrent
Attention", 2022. The backbone and the pixel decoder process frames one by one; a query
decoder (`model.mask_decoder.kind`: "ifr" or "m2f_vis") turns the whole clip into
instances and is trained by set prediction. At test time the whole video is one clip, or
short clips overlap and are linked (`test.mode`: "video" or "clip").
"""

import functools
from typing import Any, Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax import backbones
from vis_jax.association.frame_queries import FrameDecoder
from vis_jax.association.frame_queries import Settings as FrameDecoderSettings
from vis_jax.association.stitch import (
    ClipTrackBank,
    Instances,
    empty_bank,
    overlapping_clips,
    read_bank,
    shift_frames,
    stitch,
)
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.mask_decoder import ClipDecoder
from vis_jax.detectors.mask_decoder import Settings as ClipDecoderSettings
from vis_jax.detectors.pixel_decoder import PixelDecoder
from vis_jax.detectors.pixel_decoder import Settings as PixelDecoderSettings
from vis_jax.layers.queries import ClipFeatures, DecoderOutput
from vis_jax.losses.set_loss import CrossEntropy, Focal, set_loss, truth_of
from vis_jax.settings import Count, Natural, section
from vis_jax.structures import Batch, Clip, LossAux, Predictions
from vis_jax.systems.system import (
    Dtype,
    Start,
    Step,
    System,
    TestSettings,
    check_classes,
    window_of,
)
from vis_jax.typing import Array, Int32

FOCAL_PRIOR = 0.01  # initial probability of every class, as in RetinaNet
_FOUND_FROM = 0.05  # least score in a clip: focal has no no-object class


@section
class ModelSettings:
    """`model`."""

    num_classes: Natural = 0  # 0 = as many as the data set has
    backbone: backbones.Settings = backbones.resnet.Settings()
    pixel_decoder: PixelDecoderSettings = PixelDecoderSettings()
    mask_decoder: FrameDecoderSettings | ClipDecoderSettings = FrameDecoderSettings()

    def __post_init__(self) -> None:
        pixels, queries = self.pixel_decoder, self.mask_decoder
        if queries.dim != pixels.dim:
            raise ValueError(
                f"mask_decoder.dim: expected model.pixel_decoder.dim, {pixels.dim}, got"
                f" {queries.dim}"
            )
        width = pixels.mask_dim or pixels.dim
        if (queries.mask_dim or queries.dim) != width:
            raise ValueError(
                f"mask_decoder.mask_dim: expected {width}, as the pixel decoder has it,"
                f" got {queries.mask_dim or queries.dim}"
            )


@section
class ClipTestSettings(TestSettings):
    """`test`, with the linking of clips for `mode` clip."""

    clip_stride: Count = 1  # frames from one clip to the next
    # Match instances of two clips by soft mask IoU, or by Eq. 4.
    clip_link: Literal["siou", "eq4"] = "siou"
    clip_instances: Count = 50  # most per clip
    clip_tracks: Count = 50  # most at a time

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "clip" and self.clip_stride >= self.clip_length:
            raise ValueError(
                "clip_stride: expected less than test.clip_length,"
                f" {self.clip_length}, as clips must overlap, got {self.clip_stride}"
            )
        if self.mode == "clip" and self.clip_tracks < self.clip_instances:
            raise ValueError(
                "clip_tracks: expected at least test.clip_instances,"
                f" {self.clip_instances}, got {self.clip_tracks}"
            )


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: Focal | CrossEntropy = Focal()
    test: ClipTestSettings = ClipTestSettings()

    def __post_init__(self) -> None:
        if self.model.mask_decoder.kind == "m2f_vis" and self.loss.cross_frame:
            raise ValueError(
                "loss.cross_frame: expected 0.0 with model.mask_decoder.kind 'm2f_vis',"
                f" whose queries belong to no frame, got {self.loss.cross_frame}"
            )


class Model(nn.Module):
    """Backbone, pixel decoder and query decoder."""

    backbone: nn.Module
    pixel_decoder: nn.Module
    decoder: nn.Module
    style: str

    def features(
        self, images: Any, sizes: Any, train: bool, frame_valid: Any = None
    ) -> ClipFeatures:
        """Returns pixel features of clips [B, T, H, W, 3], computed per frame.

        Args:
          images, sizes: see `Batch`.
          train, frame_valid: for the backbone; with batch norm, 'batch_stats' must be
            mutable.
        """
        batch, frames = images.shape[:2]
        pixels = jax.vmap(functools.partial(normalize, style=self.style))
        flat = pixels(images, sizes).reshape(batch * frames, *images.shape[2:])
        counted = None if frame_valid is None else frame_valid.reshape(-1)
        out = self.pixel_decoder(self.backbone(flat, train, counted))

        def unflatten(x: Array) -> Array:
            return x.reshape(batch, frames, *x.shape[1:])

        return ClipFeatures(
            tuple(unflatten(x) for x in out.levels), unflatten(out.mask_features)
        )

    def decode(self, features: ClipFeatures, frame_valid: Any) -> DecoderOutput:
        """Returns predictions of every layer."""
        return self.decoder(features, frame_valid)

    def __call__(
        self, images: Any, sizes: Any, frame_valid: Any, train: bool
    ) -> tuple[DecoderOutput, ClipFeatures]:
        """Returns predictions of every layer, and the features they are based on."""
        features = self.features(images, sizes, train, frame_valid)
        return self.decode(features, frame_valid), features


def build(settings: Settings) -> System:
    """Builds the system.

    Raises:
      ValueError: the number of classes is unknown.
    """
    model = build_model(settings)

    def init(rng, batch: Batch):
        inputs = (batch.images, batch.sizes, batch.frame_valid)
        return model.init(rng, *inputs, False)

    def loss(variables, batch: Batch, rng):
        drop, points = jax.random.split(rng)
        inputs = (batch.images, batch.sizes, batch.frame_valid)
        rngs = {"drop_path": drop}
        found, updates = model.apply(
            variables, *inputs, True, rngs=rngs, mutable=["batch_stats"]
        )
        out, features = cast(tuple[DecoderOutput, ClipFeatures], found)
        terms = set_loss(
            out.class_logits,
            out.mask_embeds,
            features.mask_features,
            truth_of(batch),
            points,
            settings.loss,
        )
        stats = dict(updates.get("batch_stats", {}))
        return sum(terms.values()), LossAux(terms, stats, {})

    window = window_of(settings.test, settings.test.clip_stride)
    test_time = _whole_video if window.length is None else _clip_by_clip
    start_and_step = test_time(model, settings)
    return System(init, loss, *start_and_step, window, limit="test.clip_tracks")


def _whole_video(model: Model, settings: Settings) -> tuple[Start, Step]:
    """Returns `start` and `step` that process a video as one clip."""
    test, kind = settings.test, settings.loss.kind
    # Test-time augmentation matches and averages all queries before selecting.
    count = settings.model.mask_decoder.queries if test.tta else test.top

    def start(clip: Clip):
        del clip
        return ()

    def step(variables, state, clip: Clip):
        features = _video_features(model, variables, clip, test.chunk)
        found = _instances(model, variables, features, clip, kind=kind, count=count)
        frames, number = found.mask_logits.shape[:2]
        slots = jnp.arange(number, dtype=jnp.int32)
        return state, Predictions(
            class_probs=found.class_probs,
            track_ids=slots + 1,
            valid=jnp.ones((number,), bool),
            slots=jnp.broadcast_to(slots, (frames, number)),
            mask_logits=found.mask_logits,
        )

    return start, step


class ClipState(NamedTuple):
    """State passed from one clip to the next."""

    start: Int32[Array, ""]  # start of the previous clip
    features: ClipFeatures  # features of its frames, batch axis 1
    bank: ClipTrackBank


def _clip_by_clip(model: Model, settings: Settings) -> tuple[Start, Step]:
    """Returns `start` and `step` that link short clips, computing each frame once."""
    test, kind = settings.test, settings.loss.kind
    dtype = jnp.dtype(settings.compute_dtype)

    def start(clip: Clip):
        frames, height, width, _ = clip.images.shape

        pixels = settings.model.pixel_decoder

        def features(stride):
            dim = pixels.dim if stride > 4 else pixels.mask_dim or pixels.dim
            shape = (1, frames, height // stride, width // stride, dim)
            return jnp.zeros(shape, dtype)

        recent = overlapping_clips(frames, test.clip_stride)
        size = (height // 4, width // 4)
        classes = settings.model.num_classes
        return ClipState(
            # Starts as if no frame were shared with a previous clip.
            start=jnp.asarray(-frames, jnp.int32),
            features=ClipFeatures(tuple(map(features, (32, 16, 8))), features(4)),
            bank=empty_bank(test.clip_tracks, recent, classes, frames, size),
        )

    def step(variables, state: ClipState, clip: Clip):
        begin = jnp.asarray(clip.start, jnp.int32)
        shift = begin - state.start
        at_once = min(test.clip_stride, test.chunk, clip.images.shape[0])
        features = _next_features(
            model, variables, state.features, clip, shift, at_once
        )
        count = test.clip_instances
        found = _instances(model, variables, features, clip, kind=kind, count=count)
        frame_valid = jnp.asarray(clip.frame_valid)
        bank = stitch(state.bank, found, frame_valid, shift=shift, link=test.clip_link)
        return ClipState(begin, features, bank), read_bank(bank)

    return start, step


def build_model(settings: Settings) -> Model:
    """Builds the network.

    Raises:
      ValueError: the number of classes is unknown.
    """
    dtype = jnp.dtype(settings.compute_dtype)
    model, classes = settings.model, settings.model.num_classes
    check_classes(classes)
    return Model(
        backbone=backbones.build_backbone(model.backbone, dtype),
        pixel_decoder=PixelDecoder(**vars(model.pixel_decoder), dtype=dtype),
        decoder=_build_decoder(settings, dtype),
        style=backbones.pixel_style(model.backbone),
    )


def _build_decoder(settings: Settings, dtype: jnp.dtype) -> nn.Module:
    fields = dict(vars(settings.model.mask_decoder))
    kind = {"ifr": FrameDecoder, "m2f_vis": ClipDecoder}[fields.pop("kind")]
    focal = isinstance(settings.loss, Focal)
    return kind(
        **fields,
        outputs=settings.model.num_classes + (not focal),
        prior=FOCAL_PRIOR if focal else None,
        dtype=dtype,
    )


def _video_features(
    model: Model, variables: dict, clip: Clip, chunk: int
) -> ClipFeatures:
    """Returns features of one video, batch axis 1, `chunk` frames at a time."""

    def of(images: Any) -> Any:
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


def _next_features(
    model: Model,
    variables: dict,
    before: ClipFeatures,
    clip: Clip,
    shift: Array,
    at_once: int,
) -> ClipFeatures:
    """Returns features of a clip, reusing the frames shared with the previous clip.

    Computes `at_once` frames at a time, from the end, until `shift` new ones are done.
    """
    frames = clip.images.shape[0]
    kept = jax.tree.map(lambda x: shift_frames(x, shift, 1), before)

    def make(index, features):
        begin = jnp.maximum(frames - (index + 1) * at_once, 0)
        images = jax.lax.dynamic_slice_in_dim(clip.images, begin, at_once)
        new = model.apply(
            variables, images[None], clip.size[None], False, method=Model.features
        )

        def put(x, y):
            return jax.lax.dynamic_update_slice_in_dim(x, y, begin, 1)

        return jax.tree.map(put, features, new)

    return jax.lax.fori_loop(0, (shift + at_once - 1) // at_once, make, kept)


def _instances(
    model: Model,
    variables: dict,
    features: ClipFeatures,
    clip: Clip,
    *,
    kind: str,
    count: int,
) -> Instances:
    """Returns the `count` queries with the best score; valid = an object was found.

    A query may have several good classes. A video's best (query, class) pairs always
    lie among as many best queries.
    """
    valid = clip.frame_valid[None]
    decoded = model.apply(variables, features, valid, method=Model.decode)
    out = cast(DecoderOutput, decoded)
    logits = out.class_logits[-1, 0]
    if kind == "ce":
        probs = jax.nn.softmax(logits, axis=-1)[:, :-1]
        found = logits.argmax(axis=-1) < probs.shape[1]
    else:
        probs = jax.nn.sigmoid(logits)
        found = probs.max(axis=-1) > _FOUND_FROM
    _, best = jax.lax.top_k(probs.max(axis=-1), min(count, probs.shape[0]))
    embeds = out.mask_embeds[-1, 0][:, best]
    mask_logits = jnp.einsum(
        "tnc,thwc->tnhw", embeds, features.mask_features[0].astype(jnp.float32)
    )
    return Instances(probs[best], mask_logits, found[best])

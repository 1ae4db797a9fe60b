"""Training of IAI: frames in order, each with the ground truth of earlier frames.

Zhu et al., "Instance as identity: a generic online paradigm for video instance
segmentation", ECCV 2022, section 3.4, and its released code. Letters: B clips, T
frames, M ground-truth objects.
"""

import functools
from typing import NamedTuple, Protocol, cast, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.association.frame_memory import (
    FrameMemory,
    HybridAssociation,
    Tokens,
    training_slots,
)
from vis_jax.association.identity import SequenceIds, sequence_ids, truth_map
from vis_jax.backbones.normalize import normalize
from vis_jax.detectors import condinst_settings
from vis_jax.detectors.condinst_losses import image_losses
from vis_jax.losses.fcos import id_loss
from vis_jax.losses.multibox import ImageObjects
from vis_jax.settings import Weight, section
from vis_jax.structures import Batch, LossAux
from vis_jax.systems.iai_model import (
    IaiOutput,
    IdSettings,
    Model,
    Stages,
    remember,
    start_memory,
)
from vis_jax.systems.tracked_detector import objects_of
from vis_jax.typing import (
    Array,
    Bool,
    Float,
    Float32,
    Int32,
    Key,
    PRNGKeyArray,
    UInt32,
)

TimedStages = dict[str, Float[Array, "T B _ _ _"]]


@section
class LossSettings(condinst_settings.LossSettings):
    """`loss`: the weight of each term, and which locations are trained."""

    id: Weight = 1.0  # identity of a location's object
    # Draw the identities of a clip at random. As released they are the ranks of the
    # object ids, so that later ones are trained only by clips with many objects.
    permute: bool = False


class TrainingFrame(NamedTuple):
    """Images at one time, or at all times with a leading axis T."""

    features: Stages | TimedStages  # backbone features
    objects: ImageObjects  # [B, M]
    targets: Int32[Array, "*lead B M"]  # targets of the ID head
    ids: Int32[Array, "*lead B M"]  # identities to remember
    painted: Bool[Array, "*lead B M"]  # objects that are remembered
    real: Bool[Array, "*lead B"]  # False: padding
    sizes: Int32[Array, "*lead B 2"]  # height and width of the content in pixels
    key: Key[Array, "*lead"] | UInt32[Array, "*lead 2"]


class Carry(NamedTuple):
    """State passed from one frame to the next."""

    memory: FrameMemory | None
    stats: dict  # batch norm statistics


class FrameLoss(NamedTuple):
    """Loss of the images at one time."""

    terms: dict[str, Float32[Array, ""]]  # unweighted
    notes: dict[str, Float32[Array, ""]]
    tokens: Tokens | None  # tokens to remember
    stats: dict  # batch norm statistics


@runtime_checkable
class FramePass(Protocol):
    """Runs the network on the images at one time and returns the loss."""

    def __call__(
        self, variables: dict, carry: Carry, frame: TrainingFrame, /
    ) -> FrameLoss:
        """Returns the losses.

        Args:
          variables: variables of the model.
          carry: from earlier images; its batch statistics override those of
            `variables`.
          frame: the images.
        """
        ...


def loss(
    model: Model,
    settings: LossSettings,
    ids: IdSettings,
    variables: dict,
    batch: Batch,
    rng: PRNGKeyArray,
) -> tuple[Float32[Array, ""], LossAux]:
    """Returns the loss of a batch."""
    images = pixels_of(batch, model.style)
    return condinst_loss(model, settings, ids, variables, images, batch, rng)


def pixels_of(batch: Batch, style: str) -> Float32[Array, "B T H W 3"]:
    """Returns the normalised images."""
    return jax.vmap(functools.partial(normalize, style=style))(
        batch.images, batch.sizes
    )


def condinst_loss(
    model: Model,
    settings: LossSettings,
    ids: IdSettings,
    variables: dict,
    images: Float32[Array, "B T H W 3"],
    batch: Batch,
    rng: PRNGKeyArray,
    *,
    train: bool = True,
) -> tuple[Float32[Array, ""], LossAux]:
    """See `clip_loss`."""
    weights = {
        name: getattr(settings, name)
        for name in ("box_class", "id", "box", "centre", "mask")
        if name != "id" or ids.on
    }
    return clip_loss(
        model,
        functools.partial(_look, model, settings, ids, train),
        weights,
        variables,
        images,
        batch,
        rng,
        ids=ids.count if ids.on else 0,
        permute=settings.permute,
        train=train,
    )


def clip_loss(
    model: nn.Module,
    look: FramePass,
    weights: dict[str, float],
    variables: dict,
    images: Float32[Array, "B T H W 3"],
    batch: Batch,
    rng: PRNGKeyArray,
    *,
    ids: int,
    permute: bool,
    train: bool,
) -> tuple[Float32[Array, ""], LossAux]:
    """Returns the mean of the frame losses, differentiable through the memories.

    Args:
      model: has the field `hab` and the method `stages`.
      look: computes the loss of the images at one time.
      weights: weight of each of its terms.
      variables: variables of the model.
      images: the batch's images, normalised.
      batch: the ground truth; its images are not read.
      rng: key for drop path, random identities and sampling.
      ids: N; 0 for no identities.
      permute: see `LossSettings`.
      train: False uses the running statistics of batch norm and keeps them.
    """
    id_key, frame_key = jax.random.split(rng)
    features, stats = _stages(model, variables, images, batch.frame_valid, train)
    named = _sequence_ids(ids, batch, id_key if permute else None)
    keys = jax.random.split(frame_key, images.shape[1])
    frames = _frames(features, batch, named, keys)
    memory = _first_memory(model.hab, images)

    def follow(carry: Carry, frame: TrainingFrame) -> tuple[Carry, tuple[dict, dict]]:
        found = look(variables, carry, frame)
        memory = _remembered(model, variables, carry.memory, found.tokens, frame, ids)
        return Carry(memory, found.stats), (found.terms, found.notes)

    # Rematerialised: only memories and backbone features are kept for the gradient.
    end, (terms, notes) = jax.lax.scan(
        jax.checkpoint(follow), Carry(memory, stats), frames
    )
    means = _mean_over_frames(terms, batch.frame_valid)
    weighted = {name: weight * means[name] for name, weight in weights.items()}
    notes = {name: x.sum() for name, x in notes.items()}
    notes["objects_without_id"] = named.dropped.sum().astype(jnp.float32)
    total = sum(weighted.values(), start=jnp.float32(0.0))
    return total, LossAux(weighted, end.stats, notes)


def _first_memory(
    hab: HybridAssociation | None, images: Float32[Array, "B T H W 3"]
) -> FrameMemory | None:
    """Returns empty memories with room for the frames that the last ones attend to."""
    clips, frames, height, width, _ = images.shape
    slots = 0 if hab is None else training_slots(frames, hab.settings.interval)
    return start_memory(hab, clips, (height, width), slots=slots)


def _mean_over_frames(
    terms: dict[str, Float32[Array, "T"]], frame_valid: Bool[Array, "B T"]
) -> dict[str, Float32[Array, ""]]:
    """Averages each term over the times at which any clip has a frame."""
    seen = frame_valid.any(axis=0)
    count = jnp.maximum(seen.sum(), 1).astype(jnp.float32)
    return {name: jnp.where(seen, x, 0.0).sum() / count for name, x in terms.items()}


def _remembered(
    model: nn.Module,
    variables: dict,
    memory: FrameMemory | None,
    tokens: Tokens | None,
    frame: TrainingFrame,
    ids: int,
) -> FrameMemory | None:
    """Writes the images at one time into the memories, with their ground truth."""
    if memory is None:
        return None
    paint = functools.partial(truth_map, background=ids or 1)
    maps = jax.vmap(paint)(frame.objects.masks, frame.ids, frame.painted)
    # As released: in training no object is ever new to the memory.
    new = jnp.zeros_like(frame.real)
    return remember(
        model.hab,
        variables,
        memory,
        cast(Tokens, tokens),
        maps,
        new=new,
        real=frame.real,
    )


def _stages(
    model: nn.Module,
    variables: dict,
    images: Float32[Array, "B T H W 3"],
    frame_valid: Bool[Array, "B T"],
    train: bool,
) -> tuple[TimedStages, dict]:
    """Returns features of all images, [T, B, ..], and updated batch norm statistics."""
    clips, frames = images.shape[:2]
    found, updates = model.apply(
        variables,
        images.reshape(-1, *images.shape[2:]),
        train,
        frame_valid.reshape(-1),
        method="stages",
        mutable=["batch_stats"],
    )
    features = jax.tree.map(
        lambda x: x.reshape(clips, frames, *x.shape[1:]).swapaxes(0, 1), found
    )
    return features, dict(updates.get("batch_stats", {}))


def _sequence_ids(ids: int, batch: Batch, key: PRNGKeyArray | None) -> SequenceIds:
    """Returns the identities in every clip; all 0 when identities are off."""
    present = batch.present & batch.instance_valid[..., None]
    present &= batch.frame_valid[:, None]
    if not ids:
        shape = present.shape
        none = jnp.zeros((shape[0], shape[2], shape[1]), jnp.int32)
        zeros = jnp.zeros(shape[:2], jnp.int32)
        return SequenceIds(zeros, present.any(axis=2), none, zeros[:, 0])
    if key is None:
        of_clip = functools.partial(sequence_ids, count=ids)
        return jax.vmap(of_clip)(batch.track_ids, present)
    keys = jax.random.split(key, len(present))

    def drawn(
        track_ids: Int32[Array, "M"], present: Bool[Array, "M T"], key: PRNGKeyArray
    ) -> SequenceIds:
        return sequence_ids(track_ids, present, count=ids, key=key)

    return jax.vmap(drawn)(batch.track_ids, present, keys)


def _frames(
    features: TimedStages,
    batch: Batch,
    named: SequenceIds,
    keys: Key[Array, "T"] | UInt32[Array, "T 2"],
) -> TrainingFrame:
    """Stacks all frames in order, [T, B, ..]."""
    clips, frames = batch.frame_valid.shape
    objects = jax.tree.map(
        lambda x: x.reshape(clips, frames, *x.shape[1:]).swapaxes(0, 1),
        objects_of(batch),
    )

    def always(x: Array) -> Array:
        return jnp.broadcast_to(x[None], (frames, *x.shape))

    return TrainingFrame(
        features=features,
        objects=objects,
        targets=named.targets.swapaxes(0, 1),
        ids=always(named.ids),
        painted=objects.valid & named.kept[None],
        real=batch.frame_valid.T,
        sizes=always(batch.sizes),
        key=keys,
    )


def _look(
    model: Model,
    settings: LossSettings,
    ids: IdSettings,
    train: bool,
    variables: dict,
    carry: Carry,
    frame: TrainingFrame,
) -> FrameLoss:
    """Returns the losses of CondInst with identities."""
    path_key, mask_key = jax.random.split(frame.key)
    found, updates = model.apply(
        variables | {"batch_stats": carry.stats},
        frame.features,
        carry.memory,
        train,
        frame.real,
        method=Model.say,
        rngs={"drop_path": path_key},
        mutable=["batch_stats"],
    )
    said = cast(IaiOutput, found)
    terms, left_out = _terms(mask_key, settings, ids, said, frame)
    notes = {"positives_left_out": left_out}
    return FrameLoss(terms, notes, said.tokens, dict(updates["batch_stats"]))


def _terms(
    rng: PRNGKeyArray,
    settings: LossSettings,
    ids: IdSettings,
    said: IaiOutput,
    frame: TrainingFrame,
) -> tuple[dict[str, Float32[Array, ""]], Float32[Array, ""]]:
    """Returns the losses, and the number of positives whose masks are not trained."""
    found = image_losses(
        rng,
        settings,
        said.out,
        frame.objects,
        places=said.places,
        image_valid=frame.real,
    )
    if not ids.on:
        return found.terms, found.left_out
    positive, truth = found.targets.positive, found.targets.truth
    wanted = jnp.take_along_axis(frame.targets, truth, axis=1)
    of_ids = id_loss(
        said.out.dense.id_logits,
        jnp.where(positive, wanted, ids.count),
        kind=ids.loss,
        image_valid=frame.real,
        positive=positive,
    )
    return {**found.terms, "id": of_ids}, found.left_out

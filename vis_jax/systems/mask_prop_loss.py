"""Loss of MaskProp on top of a cascade's: masks propagated between two frames.

Bertasius and Torresani, "Classifying, Segmenting, and Tracking Object Instances in
Video with Mask Propagation", CVPR 2020, sections 4.2 and 5.1. The paper does not say
which masks are propagated in training, nor how the refinement is trained. Here they
come from the mask heads on ground-truth boxes (as from detected boxes at test time), or
are the ground-truth masks. Letters: B pairs of frames, M ground-truth objects, h w
cells of stride 8, C channels there.
"""

import functools
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp

from vis_jax.detectors import refine
from vis_jax.detectors.cascade import CascadeFeatures
from vis_jax.detectors.cascade_losses import train_rules
from vis_jax.detectors.frame_pair import Pair, draw_pair
from vis_jax.detectors.refine import Coarse, jitter_boxes, refine_loss
from vis_jax.losses.soft_iou import soft_iou_loss
from vis_jax.ops.masks import paste_on_level
from vis_jax.ops.sampling import sample_positives
from vis_jax.structures import Batch, LossAux
from vis_jax.systems.cascade_loss import pair_losses
from vis_jax.systems.mask_prop_model import STRIDE, Model, p3_of
from vis_jax.systems.mask_prop_settings import LossSettings, Settings
from vis_jax.systems.system import Loss, weighted
from vis_jax.typing import Array, Bool, Float, Float32, Int32, PRNGKeyArray


@runtime_checkable
class Apply(Protocol):
    """The network bound to its variables."""

    def __call__(self, method: str, /, *inputs: Any) -> Any:
        """Calls a method of `mask_prop_model.Model`."""
        ...


def make_loss(model: Model, settings: Settings) -> Loss:
    """Builds the loss of pairs of frames."""
    rules = train_rules(settings.model)

    def loss(
        variables: dict, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float32[Array, ""], LossAux]:
        pair_rng, rng, extra_rng = jax.random.split(rng, 3)
        pair = draw_pair(pair_rng, batch, style=model.style)
        found = pair_losses(
            rng,
            model,
            variables,
            pair,
            batch.sizes,
            rules=rules,
            least=settings.model.track_head.positive,
            both=True,
            pyramid="pair_pyramid",
        )

        def apply(method: str, /, *inputs: Any) -> Any:
            return model.apply(variables, *inputs, method=method)

        extra = extra_terms(
            extra_rng,
            apply,
            settings.loss,
            pair,
            features=found.key,
            other=p3_of(found.other),
            sizes=batch.sizes,
            refinement=settings.model.refinement,
        )
        aux = found.aux._replace(terms=found.aux.terms | extra)
        return weighted(aux, settings.loss)

    return loss


class KeyMasks(NamedTuple):
    """Masks of the objects of the key frames, to be propagated."""

    boxes: Float32[Array, "B M 4"]  # ground truth, jittered like detected boxes
    probs: Float32[Array, "B M H W"]  # from the mask heads, over these boxes
    masks: Float32[Array, "B M h w"]  # the masks to propagate
    truth: Float32[Array, "B M h w"]


def extra_terms(
    rng: PRNGKeyArray,
    apply: Apply,
    settings: LossSettings,
    pair: Pair,
    *,
    features: CascadeFeatures,
    other: Float[Array, "B h w C"],
    sizes: Int32[Array, "B 2"],
    refinement: refine.Settings,
) -> dict[str, Float32[Array, ""]]:
    """Returns the unweighted terms that MaskProp adds to its detector's.

    Args:
      rng: key for box jitter, the choice of masks to propagate and of objects to
        refine.
      apply: the network bound to its variables.
      settings: `loss`.
      pair: key and other frames, with their objects.
      features: features of the key frames.
      other: stride-8 features of the other frames.
      sizes: height and width of each frame's content in pixels.
      refinement: settings of the network.
    """
    carry_rng, refine_rng = jax.random.split(rng)
    carried = carried_masks(carry_rng, apply, settings, pair, features, sizes)
    terms = {
        "propagation": propagation_loss(
            apply, settings, carried, pair, p3_of(features.levels), other
        )
    }
    terms["refinement"] = refinement_loss(
        refine_rng,
        apply,
        carried,
        pair,
        sizes=sizes,
        most=settings.refined,
        refinement=refinement,
    )
    return terms


def carried_masks(
    rng: PRNGKeyArray,
    apply: Apply,
    settings: LossSettings,
    pair: Pair,
    features: CascadeFeatures,
    sizes: Int32[Array, "B 2"],
) -> KeyMasks:
    """Returns the masks to propagate from the key frames; see `extra_terms`."""
    box_rng, kind_rng = jax.random.split(rng)
    keys = jax.random.split(box_rng, len(sizes))
    boxes = jax.vmap(jitter_boxes)(keys, pair.truth.boxes, sizes)
    if not settings.mask_gradient:
        features = jax.lax.stop_gradient(features)
    probs = apply("mask_probs", features, boxes, pair.truth.labels)
    if not settings.mask_gradient:
        probs = jax.lax.stop_gradient(probs)
    _, height, width, _ = p3_of(features.levels).shape
    paste = functools.partial(paste_on_level, size=(height, width), stride=STRIDE)
    truth = on_level(pair.masks)
    given = jax.random.bernoulli(kind_rng, settings.true_masks, boxes.shape[:2])
    masks = jnp.where(given[..., None, None], truth, jax.vmap(paste)(probs, boxes))
    return KeyMasks(boxes, cast(Array, probs), masks, truth)


def on_level(masks: Bool[Array, "B M H W"]) -> Float32[Array, "B M h w"]:
    """Returns the share of every stride-8 cell that a mask covers."""
    *lead, height, width = masks.shape
    cells = (height // STRIDE, STRIDE, width // STRIDE, STRIDE)
    return masks.reshape(*lead, *cells).astype(jnp.float32).mean(axis=(3, 5))


def propagation_loss(
    apply: Apply,
    settings: LossSettings,
    carried: KeyMasks,
    pair: Pair,
    key: Float[Array, "B h w C"],
    other: Float[Array, "B h w C"],
) -> Float32[Array, ""]:
    """Returns Eq. 2 for both frames or the other one alone, averaged over the pairs.

    Args:
      apply, settings: see `extra_terms`.
      carried: masks of the key frames.
      pair: with the objects of both frames.
      key, other: features of the frames.
    """
    truth = on_level(pair.reference_masks)[:, :, None]
    valid = pair.truth.valid
    if settings.own_frame:
        truth = jnp.concatenate([carried.truth[:, :, None], truth], axis=2)

    def one(
        key: Array, other: Array, masks: Array, truth: Array, valid: Array
    ) -> Float32[Array, ""]:
        centre, taps = apply("prepare", key), apply("taps", key)
        frames = [centre] if settings.own_frame else []
        frames.append(apply("prepare", other))
        # A loop: the program has the branch once, whatever the number of frames.
        found = jax.lax.map(
            lambda frame: apply("propagate", centre, taps, frame, masks, valid),
            jax.tree.map(lambda *x: jnp.stack(x), *frames),
        )
        return soft_iou_loss(
            jnp.moveaxis(found, 0, 1),
            truth,
            jnp.broadcast_to(valid[:, None], truth.shape[:2]),
            epsilon=settings.epsilon,
            normalisation=settings.normalisation,
        )

    return jax.vmap(one)(key, other, carried.masks, truth, valid).mean()


def refinement_loss(
    rng: PRNGKeyArray,
    apply: Apply,
    carried: KeyMasks,
    pair: Pair,
    *,
    sizes: Int32[Array, "B 2"],
    most: int,
    refinement: refine.Settings,
) -> Float32[Array, ""]:
    """Returns 1 - soft IoU of the refined masks of sampled objects, mean over pairs.

    Args:
      rng: key for sampling objects.
      apply, sizes, refinement: see `extra_terms`.
      carried: masks to refine, from the mask heads.
      pair: key frames, with their objects.
      most: objects sampled per frame.
    """

    net = functools.partial(apply, "refine_patch")

    def one(key, pixels, boxes, probs, masks, valid, size) -> Float32[Array, ""]:
        chosen, counted, _, _ = sample_positives(key, valid, most=most)
        return refine_loss(
            net,
            pixels,
            Coarse(boxes[chosen], probs[chosen], counted),
            masks[chosen],
            size=size,
            settings=refinement,
        )

    count = len(sizes)
    inputs = (carried.boxes, carried.probs, pair.masks, pair.truth.valid, sizes)
    keys = jax.random.split(rng, count)
    return jax.vmap(one)(keys, pair.images[:count], *inputs).mean()

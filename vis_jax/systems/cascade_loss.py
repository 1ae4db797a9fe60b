"""Losses of a Hybrid Task Cascade on pairs of frames, shared by all systems on it.

Letters: B clips, R regions, E embedding channels.
"""

from typing import NamedTuple, cast

from vis_jax.detectors import cascade_settings
from vis_jax.detectors.cascade import Cascade, CascadeFeatures
from vis_jax.detectors.cascade_losses import (
    CascadeTrainRules,
    TrueObjects,
    detector_losses,
)
from vis_jax.detectors.frame_pair import Pair
from vis_jax.detectors.two_stage import BOX_SIDE, Levels
from vis_jax.settings import Weight, section
from vis_jax.structures import LossAux
from vis_jax.systems.system import check_classes
from vis_jax.systems.track_pairs import region_track_loss
from vis_jax.typing import Array, Float32, Int32, PRNGKeyArray


@section
class LossSettings:
    """`loss`: the weight of each term; stages also have `model.stages.weight`."""

    rpn_class: Weight = 1.0  # objectness of anchors
    rpn_box: Weight = 1.0  # box of anchors
    box_class: Weight = 1.0  # class of regions
    box: Weight = 1.0  # box of regions
    mask: Weight = 1.0  # mask of regions
    semantic: Weight = 0.1  # semantic class of cells, if there is a semantic branch
    track: Weight = 1.0  # identity of regions across frames, if there is a head


def check_settings(
    model: cascade_settings.Settings, loss: LossSettings, objects: int
) -> None:
    """Raises ValueError if the model cannot give that many objects or classes.

    Args:
      model, loss: settings of the system.
      objects: `test.objects`.
    """
    classes, semantic = model.num_classes, model.semantic
    check_classes(classes)
    most = min(model.rpn.proposals * classes, cascade_settings.CANDIDATES)
    if objects > most:
        raise ValueError(
            f"test.objects: expected at most {most}, the number of NMS candidates, got"
            f" {objects}"
        )
    trained = semantic.enabled and loss.semantic > 0
    if trained and semantic.classes not in (0, classes + 1):
        raise ValueError(
            f"model.semantic.classes: expected 0 or {classes + 1}, the classes and the"
            f" background, to be trained (loss.semantic), got {semantic.classes}"
        )


class PairLosses(NamedTuple):
    """Losses of pairs of frames, and the features they were computed from."""

    aux: LossAux  # unweighted terms
    key: CascadeFeatures  # features of the key frames
    other: Levels  # pyramid of the other frames; () if not requested


def pair_losses(
    rng: PRNGKeyArray,
    model: Cascade,
    variables: dict,
    pair: Pair,
    sizes: Int32[Array, "B 2"],
    *,
    rules: CascadeTrainRules,
    least: float,
    both: bool,
    pyramid: str = "pyramid",
) -> PairLosses:
    """Computes every term of the loss, and the features it used.

    Args:
      rng: key for sampling anchors and regions.
      model, variables: the network.
      pair: key frames train the detector; both frames train the track head, if any.
      sizes: height and width of each frame's content in pixels.
      rules: training targets and sampling.
      least: IoU with the ground truth above which a region trains the track head.
      both: compute features of the other frames even without a track head.
      pyramid: method of the network that computes the pyramid.
    """
    count, tracked = len(sizes), model.track_head is not None
    images = pair.images if tracked or both else pair.images[:count]
    found, updates = model.apply(
        variables, images, True, method=pyramid, mutable=["batch_stats"]
    )
    levels = cast(Levels, found)
    bound = model.bind(variables)
    features = bound.read(tuple(x[:count] for x in levels))
    others = tuple(x[count:] for x in levels) if tracked or both else ()
    objects = TrueObjects(pair.truth, pair.masks, sizes)
    losses = detector_losses(rng, bound, features, objects, rules)
    terms = dict(losses.terms)
    if tracked:
        terms["track"] = region_track_loss(
            _embed(bound, features.levels, losses.positives.boxes),
            _embed(bound, others, pair.reference_boxes),
            losses.positives,
            pair,
            least=least,
        )
    notes = {"positives_left_out": losses.left_out}
    aux = LossAux(terms, dict(updates.get("batch_stats", {})), notes)
    return PairLosses(aux, features, others)


def _embed(
    model: Cascade, levels: Levels, boxes: Float32[Array, "B R 4"]
) -> Float32[Array, "B R E"]:
    """Embeds regions for tracking, from the pyramid alone, as at test time."""
    assert model.track_head is not None
    return model.track_head(model.pool(levels, boxes, BOX_SIDE))

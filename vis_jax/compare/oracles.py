"""Oracles: replace part of a system by ground truth to measure the errors of the rest.

Yang et al., "Video Instance Segmentation", ICCV 2019, Table 3. The image oracle gives
the tracker perfect detections; the identity oracle gives real detections ground-truth
identities. Crowds are left out. Axes: T frames, N detections per frame, M ground-truth
tracks.
"""

import functools
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.datasets.dataset import VideoTruth
from vis_jax.compare.detections import RunLengths, VideoDetections, run_chunks
from vis_jax.compare.link import frames_of
from vis_jax.evaluate.clips import Piece
from vis_jax.evaluate.masks import Sizes
from vis_jax.results.collect import collect
from vis_jax.results.video import VideoResult
from vis_jax.structures import Detections, Predictions
from vis_jax.systems.detect_then_track import (
    Appearance,
    Detector,
    add_votes,
    no_votes,
    predictions,
)
from vis_jax.typing import Array, Float32, Int32, UInt8

# Numbers of slots are rounded up to multiples, so that few programs are compiled.
_MULTIPLE = 10
KINDS = ("mask", "box")


@runtime_checkable
class PerfectDetections(Protocol):
    """Returns ground-truth objects as detections."""

    def __call__(self, piece: Piece, truth: VideoTruth) -> VideoDetections:
        """Returns the ground truth as detections.

        Args:
          piece: the whole video.
          truth: ground truth of the video.
        """
        ...


class OracleRule(NamedTuple):
    """Rule for matching detections to ground truth; the paper states none."""

    kind: str  # IoU of "mask" or "box"
    least: float  # minimum IoU


def check_rule(rule: OracleRule) -> None:
    """Raises ValueError unless the rule is valid."""
    if rule.kind not in KINDS:
        raise ValueError(f"--oracle_iou: expected one of {KINDS}, got {rule.kind!r}")
    if not 0 < rule.least <= 1:
        raise ValueError(
            f"--oracle_least: expected above 0 and at most 1, got {rule.least}"
        )


def make_perfect(
    detector: Detector, variables: dict, *, classes: int, chunk: int
) -> PerfectDetections:
    """Returns a function that returns ground truth as detections with score 1.

    The network computes embeddings at the ground-truth boxes.

    Args:
      detector: computes the embeddings.
      variables: its parameters, preferably on the device already.
      classes: K.
      chunk: frames per call of the network.
    """

    @jax.jit
    def describe(
        variables: dict,
        images: UInt8[Array, "T H W 3"],
        size: Int32[Array, "2"],
        boxes: Float32[Array, "T N 4"],
    ) -> Appearance:
        features = detector.features(variables, images, size)
        return detector.describe(variables, features, boxes)

    def perfect(piece: Piece, truth: VideoTruth) -> VideoDetections:
        clip, slots = piece.clip, objects(truth)
        valid, boxes = slots >= 0, _boxes(truth, slots, piece.sizes)
        described = run_chunks(
            lambda images, boxes: describe(variables, images, clip.size, boxes),
            (np.asarray(clip.images)[: piece.rows], boxes),
            chunk,
        )
        size = np.shape(jax.eval_shape(lambda: detector.empty(1)).mask_logits)[2:]
        arrays = dict(
            boxes=boxes,
            scores=valid.astype(np.float32),
            labels=np.append(truth.labels, np.int32(classes))[slots],
            valid=valid,
            embeds=np.where(valid[..., None], described.embeds, 0),
            descriptors=np.where(valid[..., None], described.descriptors, 0),
            # Masks are the ground truth at the original size.
            mask_logits=np.zeros((*valid.shape, *size), np.float32),
        )
        found = Detections(**jax.tree.map(jnp.asarray, arrays))
        return VideoDetections(found, _masks(truth, slots))

    return perfect


def objects(truth: VideoTruth) -> np.ndarray:
    """Returns the tracks visible in each frame: int [T, N], -1 for padding."""
    shown = truth.present & ~truth.crowd[:, None]
    rows = [np.flatnonzero(column) for column in shown.T]
    most = max((len(row) for row in rows), default=0)
    slots = np.full((len(rows), _round_up(most)), -1)
    for slot, row in zip(slots, rows, strict=True):
        slot[: len(row)] = row
    return slots


def identify(
    detections: VideoDetections,
    truth: VideoTruth,
    piece: Piece,
    *,
    rule: OracleRule,
    classes: int,
    top: int,
) -> VideoResult:
    """Links detections by ground-truth identity; unmatched ones are dropped.

    A track has the mean score and the most frequent class of its detections.

    Args:
      detections: detections of the video.
      truth: ground truth of the video.
      piece: the whole video.
      rule: for matching detections to objects.
      classes: K.
      top: maximum number of tracks in the result.
    """
    ids = identities(detections, truth, piece.sizes, rule=rule)
    slots = _round_up(len(truth.labels))
    seen = _vote(jnp.asarray(ids), detections.found, slots=slots, classes=classes)
    frames = frames_of(seen, detections.masks)
    return collect(frames, top, piece.rows, piece.sizes.original)


@functools.partial(jax.jit, static_argnames=("slots", "classes"))
def _vote(
    track_ids: Int32[Array, "T N"], found: Detections, *, slots: int, classes: int
) -> Predictions:
    """Groups detections with known identities into tracks."""
    votes = add_votes(no_votes(slots, classes), track_ids, found)
    return predictions(votes, track_ids, found)


def identities(
    detections: VideoDetections, truth: VideoTruth, sizes: Sizes, *, rule: OracleRule
) -> np.ndarray:
    """Returns the ground-truth track id of each detection, or 0: int32 [T, N]."""
    from vis_jax.metrics.frame_overlaps import box_iou  # needs pycocotools

    found = jax.tree.map(np.asarray, detections.found)
    scale = np.tile(np.divide(sizes.original, sizes.content)[::-1], 2)
    ids = np.zeros(found.valid.shape, np.int32)
    for t, valid in enumerate(found.valid):
        rows = np.flatnonzero(valid)
        columns = np.flatnonzero(truth.present[:, t] & ~truth.crowd)
        if rule.kind == "box":
            boxes = found.boxes[t, rows] * scale
            overlaps = box_iou(boxes, truth.boxes[columns, t])
        else:
            overlaps = mask_overlaps(
                [detections.masks[t][row] for row in rows],
                [truth.segmentations[column][t] for column in columns],
            )
        matched = match(overlaps, found.scores[t, rows], rule.least)
        kept = matched >= 0
        ids[t, rows[kept]] = columns[matched[kept]] + 1
    return ids


def match(overlaps: np.ndarray, scores: np.ndarray, least: float) -> np.ndarray:
    """Matches each detection of a frame to an object, or -1: int [N].

    In order of score, each detection takes the free object that it overlaps most.

    Args:
      overlaps: IoU [N, M].
      scores: [N].
      least: minimum IoU.
    """
    found = np.full(len(scores), -1)
    free = np.array(overlaps, np.float64)
    for row in np.argsort(-scores, kind="stable"):
        if free.shape[1] and free[row].max() >= least:
            found[row] = free[row].argmax()
            free[:, found[row]] = -1
    return found


def mask_overlaps(found: list[dict | None], true: list[dict | None]) -> np.ndarray:
    """Returns the IoU [N, M] of RLE masks."""
    from pycocotools import mask as coco_mask

    if not found or not true:
        return np.zeros((len(found), len(true)))
    return np.asarray(coco_mask.iou(found, true, [False] * len(true)))


def _boxes(truth: VideoTruth, slots: np.ndarray, sizes: Sizes) -> np.ndarray:
    """Returns boxes of the slots in canvas pixels: float32 [T, N, 4], 0 in padding."""
    frames = np.arange(len(slots))[:, None]
    padded = np.pad(truth.boxes, ((0, 1), (0, 0), (0, 0)))
    scale = np.divide(sizes.content, sizes.original)[::-1]
    return (padded[slots, frames] * np.tile(scale, 2)).astype(np.float32)


def _masks(truth: VideoTruth, slots: np.ndarray) -> RunLengths:
    return [
        [truth.segmentations[i][t] if i >= 0 else None for i in row]
        for t, row in enumerate(slots.tolist())
    ]


def _round_up(count: int) -> int:
    return max(1, -(-count // _MULTIPLE)) * _MULTIPLE

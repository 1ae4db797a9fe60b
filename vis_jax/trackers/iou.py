"""IoUTracker+: boxes, scores and classes, without a look at the image.

Yang et al., "Video Instance Segmentation", ICCV 2019, describe this baseline in words;
`Settings` has what they leave open. Each detection takes the track of the largest

  v(n) = detection ln(score) + iou IoU + category [same class],

provided that their boxes overlap enough; else it begins a track. Of those that choose
one track the largest v keeps it.
"""

from typing import NamedTuple

import jax.numpy as jnp

from vis_jax.ops.boxes import box_iou
from vis_jax.structures import Clip, Detections
from vis_jax.trackers.track_bank import (
    TrackBank,
    cue_scores,
    empty_bank,
    in_use,
    resolve,
    write_bank,
)
from vis_jax.trackers.tracker import Tracked, Tracker, scan_frames
from vis_jax.typing import Array, Float32, Int32

LOSERS = ("dropped", "new")


class Settings(NamedTuple):
    """Weights of the cues, 0 for a cue that is off, and the rule.

    Attributes:
      detection, iou, category: alpha, beta, gamma of Eq. 3; 1, 2, 10 in the paper.
      min_iou: the least IoU of a detection with the last box of its track, 0.3 in the
        paper; above 0.
      filter_first: whether tracks below it are left out before the largest v is taken.
        Else a detection whose label has changed prefers a track of its class far away,
        fails there and begins a track, as the paper reads literally.
      losers: "dropped" or "new": what becomes of detections whose track another gets.
      refresh_labels: whether a track takes the label of its last detection instead of
        its first.
    """

    detection: float
    iou: float
    category: float
    min_iou: float
    filter_first: bool
    losers: str
    refresh_labels: bool


def build(settings: Settings, slots: int) -> Tracker:
    """The tracker.

    Args:
      settings: see there.
      slots: the most tracks of a video.

    Raises:
      ValueError: a setting is out of its range.
    """
    check(settings, "test.trackers.iou")

    def start(clip: Clip, detections: Detections) -> TrackBank:
        del clip, detections
        return empty_bank(slots, 0)

    def step(bank: TrackBank, found: Detections):
        return link(bank, found, box_iou(found.boxes, bank.boxes), settings)

    def track(variables: dict, bank: TrackBank, clip: Clip, detections: Detections):
        del variables
        bank, track_ids = scan_frames(step, bank, detections, clip.frame_valid)
        return bank, Tracked(track_ids, detections, bank.lost)

    return Tracker(start, track, offline=False)


def link(
    bank: TrackBank,
    found: Detections,
    overlaps: Float32[Array, "N M"],
    settings: Settings,
) -> tuple[TrackBank, Int32[Array, "N"]]:
    """The rule for one frame, whatever the overlaps are of.

    Args:
      bank: without embeddings.
      found: detections of the frame.
      overlaps: of detections with tracks, in [0, 1].
      settings: see there.

    Returns:
      The bank after the frame, and the identities of the detections.
    """
    values = cue_scores(
        found.scores,
        overlaps,
        found.labels[:, None] == bank.labels[None],
        detection=settings.detection,
        iou=settings.iou,
        category=settings.category,
    )
    close = in_use(bank)[None] & (overlaps >= settings.min_iou)
    usable = close if settings.filter_first else in_use(bank)[None]
    values = jnp.where(usable, values, -jnp.inf)
    slot = values.argmax(axis=1).astype(jnp.int32)
    chosen = jnp.take_along_axis(close, slot[:, None], axis=1)[:, 0]
    known = found.valid & chosen
    kept = resolve(values.max(axis=1), slot, known)
    begins = ~kept if settings.losers == "new" else ~known
    return write_bank(
        bank,
        found._replace(embeds=found.embeds[:, :0]),
        slot,
        kept=kept,
        new=found.valid & begins,
        refresh_labels=settings.refresh_labels,
    )


def check(settings: Settings, where: str) -> None:
    """Raises ValueError if a setting, found at `where` in a config, cannot be."""
    if settings.losers not in LOSERS:
        raise ValueError(
            f"{where}.losers: expected one of {LOSERS}, got {settings.losers!r}"
        )
    if not 0 < settings.min_iou <= 1:
        raise ValueError(
            f"{where}.min_iou: expected above 0 and at most 1, got {settings.min_iou}"
        )

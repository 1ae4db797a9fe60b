"""Prepares the annotated and predicted tracks of a video for the report."""

from collections.abc import Sequence
from typing import NamedTuple

from vis_jax.formats.tracks import Id, ResultTrack, Track, TruthTrack, TruthVideo
from vis_jax.metrics.clear_motmetrics import match_frames
from vis_jax.metrics.error_breakdown import Finding
from vis_jax.metrics.frame_overlaps import video_overlaps
from vis_jax.metrics.tracking import IOU_THRESHOLD
from vis_jax.report.tubes import (
    MAX_FRAMES,
    VIDEO_BYTES,
    ShownFrames,
    colour_text,
    make_view,
    pack_track,
    runs,
    view_entry,
)

LEAST = 10  # predictions of a video shown regardless of their scores
MOST = 25
HUGE = 1e9  # stands for infinity


class Tubes(NamedTuple):
    """Annotated and predicted tracks of one video, with their matches."""

    truths: list[tuple[int, TruthTrack]]  # with their numbers in `indexed_tracks`
    findings: list[Finding]  # one for each prediction
    missed: set[int]  # numbers of annotated tracks without a prediction


class Cover(NamedTuple):
    """Per-frame matches of annotated tracks and predictions."""

    partners: list[list[int | None]]  # [G][T], -1 if unmatched, None if not visible
    switches: list[list[int]]  # [G], frames with an identity switch

    @property
    def num_switches(self) -> int:
        """Number of identity switches of all tracks."""
        return sum(map(len, self.switches))


def cover_tracks(
    truths: Sequence[TruthTrack], predictions: Sequence[ResultTrack], threshold: float
) -> Cover:
    """Matches masks frame by frame with the rules of py-motmetrics.

    Args:
      truths, predictions: G and D tracks of one video, without crowds.
      threshold: minimum score of a prediction to be matched.
    """
    overlaps = video_overlaps(
        list(truths), list(predictions), kind="mask", class_aware=True
    )
    kept = overlaps.scores >= threshold
    partners: list[list[int | None]] = [[] for _ in truths]
    switches: list[list[int]] = [[] for _ in truths]
    matches = match_frames(overlaps, kept, iou_threshold=IOU_THRESHOLD)
    for t, found in enumerate(matches):
        visible = set(found.truth_ids)
        for g, row in enumerate(partners):
            row.append(found.partner.get(g, -1) if g in visible else None)
        for g in found.switches:
            switches[g].append(t)
    return Cover(partners, switches)


def shown_findings(findings: Sequence[Finding], threshold: float) -> list[Finding]:
    """Selects the predictions to show, best score first.

    These are the predictions that reach the threshold, and the `LEAST` best regardless
    of it; at most `MOST`.
    """
    ordered = sorted(findings, key=lambda f: -f.track.score)
    return [
        finding
        for i, finding in enumerate(ordered[:MOST])
        if i < LEAST or finding.track.score >= threshold
    ]


def fitting_tracks(
    video: TruthVideo, tubes: Tubes, threshold: float, classes: dict[Id, int]
) -> dict:
    """Like `tracks_of_video`, with fewer frames if the masks exceed `VIDEO_BYTES`."""
    most = MAX_FRAMES
    while True:
        tracks = tracks_of_video(video, tubes, threshold, classes, most)
        size = size_of(tracks)
        if size <= VIDEO_BYTES or most == 1:
            return tracks
        most = max(1, most * VIDEO_BYTES // size)


def size_of(tracks: dict) -> int:
    """Estimates the bytes taken by the tracks of a video.

    Args:
      tracks: as returned by `tracks_of_video`.
    """
    every = tracks["truths"] + tracks["predictions"]
    return sum(
        200 + sum(len(str(mask)) + 3 for mask in track["masks"]) for track in every
    )


def tracks_of_video(
    video: TruthVideo,
    tubes: Tubes,
    threshold: float,
    classes: dict[Id, int],
    most: int = MAX_FRAMES,
) -> dict:
    """Returns the tracks of a video and their view, as JSON values.

    Args:
      video: with its size.
      tubes: the tracks.
      threshold: minimum score of a prediction in the time line.
      classes: index of each category in the page's list of classes.
      most: maximum number of frames.

    Returns:
      `height`, `width`, `step`, `frames` of the view; `truths`, `predictions`;
      `hidden`: number of omitted predictions.
    """
    truths = [track for _, track in tubes.truths]
    shown = shown_findings(tubes.findings, threshold)
    predictions = [finding.track for finding in shown]
    tracks: list[Track] = [*truths, *predictions]
    lengths = [len(track.segmentations) for track in tracks]
    view = make_view(video, video.length or max(lengths, default=0), most)
    cover = cover_tracks(truths, predictions, threshold)
    place = {number: g for g, (number, _) in enumerate(tubes.truths)}
    targets = [
        None if finding.target is None else place.get(finding.target)
        for finding in shown
    ]
    truth_entries = [
        {
            "name": str(g + 1),
            "class": classes[track.category_id],
            "colour": colour_text(g + 1),
            "missed": number in tubes.missed,
            "cover": runs(_at(cover.partners[g], view)),
            "switches": [t // view.step for t in cover.switches[g]],
        }
        | pack_track(track.segmentations, view)
        for g, (number, track) in enumerate(tubes.truths)
    ]
    return view_entry(view) | {
        "truths": truth_entries,
        "predictions": _prediction_entries(shown, targets, len(truths), classes, view),
        "hidden": len(tubes.findings) - len(shown),
    }


def _prediction_entries(
    shown: list[Finding],
    targets: list[int | None],
    truths: int,
    classes: dict[Id, int],
    view: ShownFrames,
) -> list[dict]:
    """Returns the predictions; `targets` are indices of the `truths` tracks."""
    colours = _colours(targets, truths)
    return [
        {
            "name": f"p{d + 1}",
            "class": classes[finding.track.category_id],
            "score": shown_score(finding.track.score),
            "colour": colour_text(colours[d]),
            "kind": finding.kind,
            "target": targets[d],
        }
        | pack_track(finding.track.segmentations, view)
        for d, finding in enumerate(shown)
    ]


def shown_score(score: float) -> float:
    """Rounds a score; clips infinite ones, which files may contain but JSON cannot."""
    return round(min(max(float(score), -HUGE), HUGE), 4)


def _at(row: Sequence[int | None], view: ShownFrames) -> list[int | None]:
    """Returns the values of a row at the shown frames."""
    return [row[t] if t < len(row) else None for t in view.frames]


def _colours(targets: Sequence[int | None], count: int) -> list[int]:
    """Returns the colour number of each prediction.

    The first prediction matched to an annotated track shares its colour; all others get
    their own, so that identity switches are visible.

    Args:
      targets: annotated track matched by each prediction, best score first.
      count: number of annotated tracks.
    """
    taken: set[int] = set()
    numbers, following = [], count
    for target in targets:
        if target is not None and target not in taken:
            taken.add(target)
            numbers.append(target + 1)
        else:
            following += 1
            numbers.append(following)
    return numbers

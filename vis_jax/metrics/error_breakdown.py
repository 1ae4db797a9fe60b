"""Breaks down the loss in AP by kind of error.

Follows Bolya et al., "TIDE", ECCV 2020, Sections 2.2 and 2.3, with tubes instead of
boxes and two more kinds for temporal errors. The cost of a kind is the gain in AP50
from fixing it alone. The kinds are defined in docs/scoring.md.
"""

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from vis_jax.formats.tracks import Id, Results, ResultTrack, TruthFile, TruthTrack
from vis_jax.metrics.frame_overlaps import video_overlaps
from vis_jax.metrics.tube_overlap import tube_overlap
from vis_jax.metrics.video_ap import AREAS, RECALL_POINTS, indexed_tracks, match

FOUND = 0.5  # minimum IoU of a match
NEAR = 0.1  # minimum IoU to attribute an error to a track
SECOND = 0.1  # fraction of frames on another track that makes a switch
MENDED = ("classification", "localisation", "switch", "fragment")  # correct once fixed
REMOVED = ("both", "duplicate", "background")
KINDS = (*MENDED, *REMOVED, "miss")


class Finding(NamedTuple):
    """Outcome of one prediction."""

    track: ResultTrack
    kind: str  # "correct", "ignored" or one of KINDS
    target: int | None  # index of the track it is attributed to


class Account(NamedTuple):
    """Outcomes of all predictions in evaluation order, and the ground-truth tracks."""

    findings: list[Finding]
    targets: dict[int, Id]  # category by track index in `indexed_tracks`
    missed: set[int]  # indices of tracks without any attributed prediction
    videos: dict[Id, Counter]  # errors of each kind


def error_breakdown(
    truth: TruthFile,
    results: Results,
    *,
    official_quirks: bool = True,
    progress: bool = False,
) -> dict:
    """Computes the AP50 lost to each kind of error.

    Args:
      truth, results: as read by `results_json`.
      official_quirks: as in `video_ap.evaluate`.
      progress: show a bar if it takes more than some seconds.

    Returns:
      AP50; `lost`: gain in AP50 from fixing all errors of a kind; `counts`: errors of
      each kind; `videos`: the counts by video id.
    """
    account = take_account(
        truth, results, official_quirks=official_quirks, progress=progress
    )
    return summarise_account(account)


def take_account(
    truth: TruthFile,
    results: Results,
    *,
    official_quirks: bool = True,
    progress: bool = False,
) -> Account:
    """Determines the outcome of each prediction.

    Args:
      truth, results: as read by `results_json`.
      official_quirks: as in `video_ap.evaluate`.
      progress: show a bar if it takes more than some seconds.
    """
    account = Account([], {}, set(), {})
    predictions, truths = defaultdict(list), defaultdict(list)
    for track in results.tracks:
        if track.category_id in truth.categories:
            predictions[track.video_id].append(track)
    for number, annotated in enumerate(indexed_tracks(truth, official_quirks)):
        if annotated.category_id in truth.categories:
            truths[annotated.video_id].append((number, annotated))
    for video_id in tqdm(sorted(truth.videos), "errors", delay=5, disable=not progress):
        account.videos[video_id] = _account_video(
            predictions[video_id], truths[video_id], account, official_quirks
        )
    return account


def summarise_account(account: Account) -> dict:
    """Computes the cost of each kind of error, as returned by `error_breakdown`."""
    base = _mean_ap(account, None)
    total = sum(account.videos.values(), Counter())
    return {
        "AP50": base,
        "lost": {kind: _gain(account, kind, base) for kind in KINDS},
        "counts": {kind: total[kind] for kind in KINDS},
        "videos": {v: {k: c[k] for k in KINDS} for v, c in account.videos.items() if c},
    }


def _gain(account: Account, kind: str, base: float | None) -> float | None:
    mended = _mean_ap(account, kind)
    return None if base is None or mended is None else mended - base


def _account_video(
    predictions: list[ResultTrack],
    numbered: list[tuple[int, TruthTrack]],
    account: Account,
    official_quirks: bool,
) -> Counter:
    """Adds the predictions and tracks of one video to the account."""
    findings = _match(predictions, numbered, official_quirks)
    wanted = [(number, track) for number, track in numbered if not track.crowd]
    account.targets.update({number: track.category_id for number, track in wanted})
    wrong = [i for i, finding in enumerate(findings) if finding.kind == "wrong"]
    reasons = _explain([findings[i].track for i in wrong], wanted, official_quirks)
    for i, (kind, target) in zip(wrong, reasons, strict=True):
        findings[i] = findings[i]._replace(kind=kind, target=target)
    account.findings.extend(findings)
    about = {f.target for f in findings if f.kind in (*MENDED, "correct")}
    missed = {number for number, _ in wanted if number not in about}
    account.missed.update(missed)
    return Counter(findings[i].kind for i in wrong) + Counter(miss=len(missed))


def _match(
    predictions: list[ResultTrack],
    numbered: list[tuple[int, TruthTrack]],
    official_quirks: bool,
) -> list[Finding]:
    """Labels each prediction of a video "correct", "ignored" or "wrong"."""
    findings = []
    for category in sorted({track.category_id for track in predictions}):
        candidates = [track for track in predictions if track.category_id == category]
        tracks = [(n, track) for n, track in numbered if track.category_id == category]
        one = match(
            candidates,
            [track for _, track in tracks],
            AREAS[:1],
            official_quirks=official_quirks,
        )
        for d, prediction in enumerate(one.predictions):
            if one.ignored[0, 0, d]:
                findings.append(Finding(prediction, "ignored", None))
            elif one.matched[0, 0, d]:
                number = tracks[one.partner[0, 0, d]][0]
                findings.append(Finding(prediction, "correct", number))
            else:
                findings.append(Finding(prediction, "wrong", None))
    return findings


def _explain(
    predictions: list[ResultTrack],
    wanted: list[tuple[int, TruthTrack]],
    official_quirks: bool,
) -> list[tuple[str, int | None]]:
    """Returns the error kind and attributed track of each wrong prediction."""
    if not wanted or not predictions:
        return [("background", None)] * len(predictions)
    tracks = [track for _, track in wanted]
    iou = tube_overlap(predictions, tracks, official_quirks=official_quirks).iou()
    same = np.array(
        [[g.category_id == d.category_id for g in tracks] for d in predictions], bool
    ).reshape(iou.shape)
    follows = _frames_followed(predictions, tracks)
    reasons = []
    for d, prediction in enumerate(predictions):
        visible = int((prediction.areas > 0).sum())
        kind, g = _kind(iou[d], same[d], np.where(same[d], follows[d], 0), visible)
        reasons.append((kind, None if g is None else wanted[g][0]))
    return reasons


def _kind(
    iou: np.ndarray, same: np.ndarray, follows: np.ndarray, visible: int
) -> tuple[str, int | None]:
    """Returns the error kind and attributed track of a wrong prediction.

    Args:
      iou: float64[G], of tubes.
      same: bool[G], tracks of the same category.
      follows: int64[G], frames in which it follows each track of its category.
      visible: frames in which the prediction has pixels.
    """
    own, other = np.where(same, iou, -1.0), np.where(same, -1.0, iou)
    if own.max() >= FOUND:
        return "duplicate", int(own.argmax())
    if other.max() >= FOUND:
        return "classification", int(other.argmax())
    if visible and 2 * follows.sum() >= visible:
        second = np.sort(follows)[-2] if len(follows) > 1 else 0
        switched = second > 0 and second >= SECOND * visible
        return "switch" if switched else "fragment", int(follows.argmax())
    if own.max() >= NEAR:
        return "localisation", int(own.argmax())
    if other.max() >= NEAR:
        return "both", None
    return "background", None


def _frames_followed(
    predictions: list[ResultTrack], tracks: list[TruthTrack]
) -> np.ndarray:
    """Counts frames in which each prediction follows each track: int64[D, G].

    In a frame it follows the track of its category with the highest IoU, at least 0.5.
    """
    frames = np.zeros((len(predictions), len(tracks)), np.int64)
    overlaps = video_overlaps(tracks, predictions, kind="mask", class_aware=True)
    for rows, columns, iou in zip(*overlaps[:3], strict=True):
        if iou.size:
            best, value = iou.argmax(0), iou.max(0)
            matched = value >= FOUND
            frames[columns[matched], rows[best[matched]]] += 1
    return frames


def _mean_ap(account: Account, mended: str | None) -> float | None:
    """Computes AP50 over categories with tracks, with one kind of error fixed."""
    removed = account.missed if mended == "miss" else set()
    needed, flags = Counter(account.targets.values()), defaultdict(list)
    needed.subtract(Counter(account.targets[number] for number in removed))
    for category, score, true in _judged(account, mended):
        flags[category].append((score, true))
    if not needed:
        return None
    values = [_ap(flags[c], needed[c]) for c in sorted(needed)]
    return float(np.mean(values))


def _judged(account: Account, mended: str | None) -> list[tuple[Id, float, bool]]:
    """Returns (category, score, correct) of each prediction that counts."""
    taken = {f.target for f in account.findings if f.kind == "correct"}
    judged = []
    best_first = sorted(account.findings, key=lambda f: -f.track.score)
    for finding in best_first:
        kind, category, right = finding.kind, finding.track.category_id, False
        if kind == "ignored":
            continue
        if kind == "correct":
            right = True
        elif kind == mended:
            if finding.target is None or finding.target in taken or kind in REMOVED:
                continue
            taken.add(finding.target)
            category, right = account.targets[finding.target], True
        judged.append((category, finding.track.score, right))
    return judged


def _ap(flags: list[tuple[float, bool]], needed: int) -> float:
    """Computes 101-point interpolated AP; 1 if there are no tracks to find."""
    if needed == 0:
        return 1.0
    if not flags:
        return 0.0
    right = np.array([flag for _, flag in flags])
    true = np.cumsum(right).astype(np.float64)
    precision = true / (np.arange(1, len(right) + 1) + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(true / needed, RECALL_POINTS, side="left")
    return float(np.append(envelope, 0.0)[at].mean())

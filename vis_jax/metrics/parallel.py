"""Reads and matches results in several processes, each on consecutive entries.

Each process reads the ground truth and its part of the file itself, so that little data
is sent to it. Parts end where the video changes; if the entries of a video are still
split, one process does everything. Returned values are integers or computed within one
video, so the result does not depend on the number of processes.
"""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from vis_jax.formats.fast_entries import load_tracks, plain_entries
from vis_jax.formats.json_checks import Checker, FormatError
from vis_jax.formats.results_json import load_truth, paused_collection
from vis_jax.formats.tracks import Id, Results, ResultTrack, TruthFile
from vis_jax.metrics.tracking import Measures, identity_measures, measure_videos
from vis_jax.metrics.video_ap import Matches, match_videos

MIN_BYTES = 16 << 20  # results per process; starting one takes 0.2 s
# Entry point of a worker: avoids sending back classes defined in `__main__`.
_PROGRAM = "import sys; from vis_jax.metrics.parallel import main; main(sys.argv[1])"
_NOTHING, _SOMETHING = np.zeros(0, np.int64), np.ones(1, np.int64)


class ScoringJob(NamedTuple):
    """Work to do on a results file."""

    truth: str  # path
    results: str
    official_quirks: bool
    occlusion: bool
    tracking: str  # "all", "identities" or "none"
    kind: str
    class_aware: bool
    score_threshold: float


class PartFindings(NamedTuple):
    """Findings for a part of the videos."""

    tracks: list[ResultTrack]  # without masks; `areas` only tells whether any exist
    tolerated: Counter
    matches: dict[tuple[Id, Id], Matches]
    measures: dict[Id, Measures]
    curve: np.ndarray | None


def num_workers() -> int:
    """Returns the number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find(job: ScoringJob, truth: TruthFile, workers: int) -> PartFindings | None:
    """Runs a job in several processes.

    Args:
      job: the work.
      truth: ground truth of the job, already read.
      workers: maximum number of processes, including this one.

    Returns:
      None if one process should do it: the file is small, packed or irregular, or the
      entries of a video are not contiguous.

    Raises:
      FormatError: as in `results_json.load_results`.
      ValueError: as in `video_ap.evaluate`, or a process ended early.
    """
    size = os.path.getsize(job.results) if os.path.isfile(job.results) else 0
    parts = min(workers, size // MIN_BYTES)
    # With official quirks a track may replace one of another video with the same id.
    if parts < 2 or truth.tolerated["truth: duplicate id"]:
        return None
    others = [_start(job, part, parts) for part in range(1, parts)]
    try:
        entries = plain_entries(job.results)
        if entries is None:
            return None
        found = [_find_part(job, truth, entries, 0, parts)]
        found += [_result(process) for process in others]
    finally:
        for process in others:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
    videos = [{track.video_id for track in one.tracks} for one in found]
    seen = set().union(*videos)
    if len(seen) < sum(map(len, videos)):
        return None
    rest = {v: video for v, video in truth.videos.items() if v not in seen}
    found.append(_work(job, truth._replace(videos=rest), [], Counter()))
    return _joined(found)


def _joined(found: list[PartFindings]) -> PartFindings:
    measures = {v: one for part in found for v, one in part.measures.items()}
    curves = [part.curve for part in found if part.curve is not None]
    tolerated: Counter = Counter()
    for part in found:
        tolerated.update(part.tolerated)
    return PartFindings(
        tracks=[track for part in found for track in part.tracks],
        tolerated=tolerated,
        matches={key: one for part in found for key, one in part.matches.items()},
        measures={video_id: measures[video_id] for video_id in sorted(measures)},
        curve=np.sum(curves, axis=0) if curves else None,
    )


def _start(job: ScoringJob, part: int, parts: int) -> subprocess.Popen:
    words = json.dumps([part, parts, *job])
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
    )


def _result(process: subprocess.Popen) -> PartFindings:
    output, _ = process.communicate()
    if process.returncode:
        raise ValueError(
            "workers: expected each to end with code 0, got"
            f" {process.returncode}; --workers 1 does without"
        )
    found = pickle.loads(output)
    if isinstance(found, ValueError):
        raise found
    return found


def _find_part(
    job: ScoringJob,
    truth: TruthFile,
    entries: Sequence[msgspec.Raw],
    part: int,
    parts: int,
) -> PartFindings:
    """Processes one part of the entries, and the videos they belong to."""
    first, stop = _cuts(entries, parts)[part : part + 2]
    checker = Checker(job.results, not job.official_quirks, Counter(), side="results")
    with paused_collection():
        tracks = load_tracks(entries[first:stop], truth, checker, start=first)
    seen = {track.video_id for track in tracks}
    own = truth._replace(videos={v: truth.videos[v] for v in truth.videos if v in seen})
    return _work(job, own, tracks, checker.tolerated)


def _cuts(entries: Sequence[msgspec.Raw], parts: int) -> list[int]:
    """Returns the boundaries of parts of about equal size in bytes."""
    ends = np.cumsum([len(memoryview(raw)) for raw in entries])
    cuts = [0]
    for part in range(1, parts):
        place = int(np.searchsorted(ends, ends[-1] * part // parts)) if entries else 0
        place = max(place, cuts[-1])
        while 0 < place < len(entries) and _same_video(*entries[place - 1 : place + 1]):
            place += 1
        cuts.append(place)
    return [*cuts, len(entries)]


class _Head(msgspec.Struct):
    video_id: int


_HEAD = msgspec.json.Decoder(_Head)


def _same_video(a: msgspec.Raw, b: msgspec.Raw) -> bool:
    try:
        return _HEAD.decode(a).video_id == _HEAD.decode(b).video_id
    except msgspec.MsgspecError:  # an irregular id; `find` detects split videos
        return False


def _work(
    job: ScoringJob, truth: TruthFile, tracks: list[ResultTrack], tolerated: Counter
) -> PartFindings:
    """Processes all videos of a ground truth."""
    results = Results(job.results, tracks, tolerated)
    matches = match_videos(
        truth,
        results,
        official_quirks=job.official_quirks,
        occlusion=job.occlusion,
        progress=False,
    )
    measures: dict[Id, Measures] = {}
    curve = None
    if job.tracking == "all":
        measures, curve = measure_videos(
            truth,
            results,
            kind=job.kind,
            class_aware=job.class_aware,
            score_threshold=job.score_threshold,
            sweep=True,
            progress=False,
        )
    elif job.tracking == "identities":
        measures = identity_measures(
            truth,
            results,
            kind=job.kind,
            class_aware=job.class_aware,
            score_threshold=job.score_threshold,
        )
    light = {key: _light(one) for key, one in matches.items()}
    return PartFindings(
        [_bare(track) for track in tracks], tolerated, light, measures, curve
    )


def _light(matches: Matches) -> Matches:
    return matches._replace(predictions=[_bare(one) for one in matches.predictions])


def _bare(track: ResultTrack) -> ResultTrack:
    areas = _SOMETHING if track.areas.any() else _NOTHING
    return track._replace(segmentations=[], areas=areas)


def main(words: str) -> None:
    """Runs a worker; writes its findings or error to stdout."""
    part, parts, *fields = json.loads(words)
    job = ScoringJob(*fields)
    try:
        truth = load_truth(job.truth, official_quirks=job.official_quirks)
        entries = plain_entries(job.results)
        if entries is None:
            raise FormatError(f"{job.results}: expected a file that stays as it is")
        found: PartFindings | ValueError = _find_part(job, truth, entries, part, parts)
    except FormatError as error:
        found = FormatError(str(error))
    except ValueError as error:
        found = ValueError(str(error))
    sys.stdout.buffer.write(pickle.dumps(found, pickle.HIGHEST_PROTOCOL))

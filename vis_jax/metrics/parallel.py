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
from itertools import pairwise
from types import TracebackType
from typing import NamedTuple

import numpy as np

from vis_jax.formats.fast_entries import load_plain, open_list
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


class Workers:
    """Processes that do a job together with this one; ended at the end of a `with`.

    They begin at once, so that the caller reads the ground truth at the same time.

    Args:
      job: the work.
      count: maximum number of processes, including this one.
    """

    def __init__(self, job: ScoringJob, count: int) -> None:
        self._job = job
        self._parts = _parts(job.results, count)
        self._others = [_start(job, part) for part in self._parts[1:]]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._others:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def find(self, truth: TruthFile) -> PartFindings | None:
        """Does the job.

        Args:
          truth: ground truth of the job.

        Returns:
          None if one process should do it: the file is small, packed, irregular or
          malformed, or the entries of a video are not contiguous.

        Raises:
          ValueError: a process ended early.
        """
        # With official quirks a track may replace one of another video with the same
        # id.
        if not self._others or truth.tolerated["truth: duplicate id"]:
            return None
        own = _find_part(self._job, truth, self._parts[0])
        found = [own, *map(_result, self._others)]
        parts = [one for one in found if one is not None]
        videos = [{track.video_id for track in one.tracks} for one in parts]
        seen = set().union(*videos)
        if len(parts) < len(found) or len(seen) < sum(map(len, videos)):
            return None
        rest = {v: video for v, video in truth.videos.items() if v not in seen}
        last = _work(self._job, truth._replace(videos=rest), [], Counter())
        return _joined([*parts, last])


def _parts(path: str, count: int) -> list[tuple[int, int]]:
    """Returns start and stop of parts of about equal size; none for a small file."""
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    count = min(count, size // MIN_BYTES)
    try:
        listed = open_list(path) if count > 1 else None
    except FormatError:  # reported when it is read
        listed = None
    if listed is None:
        return []
    length = listed.stop - listed.start
    cuts = [
        listed.cut_between_videos(listed.start + length * part // count)
        for part in range(1, count)
    ]
    return list(pairwise(sorted({listed.start, *cuts, listed.stop})))


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


def _start(job: ScoringJob, part: tuple[int, int]) -> subprocess.Popen:
    words = json.dumps([*part, *job])
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
    )


def _result(process: subprocess.Popen) -> PartFindings | None:
    output, _ = process.communicate()
    if process.returncode:
        raise ValueError(
            "workers: expected each to end with code 0, got"
            f" {process.returncode}; --workers 1 does without"
        )
    return pickle.loads(output)


def _find_part(
    job: ScoringJob, truth: TruthFile, part: tuple[int, int]
) -> PartFindings | None:
    """Processes one part of the entries, and the videos they belong to.

    Returns:
      None if one process should read the whole file, which also tells the place of a
      defect.
    """
    checker = Checker(job.results, not job.official_quirks, Counter(), side="results")
    try:
        listed = open_list(job.results)
        if listed is None:
            return None
        with paused_collection():
            tracks = load_plain(listed, truth, checker, *part)
            if tracks is None:
                return None
            seen = {track.video_id for track in tracks}
            videos = {v: truth.videos[v] for v in truth.videos if v in seen}
            own = truth._replace(videos=videos)
            return _work(job, own, tracks, checker.tolerated)
    except ValueError:
        return None


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
    bare = {track.position: _bare(track) for track in tracks}
    light = {
        key: one._replace(predictions=[bare[x.position] for x in one.predictions])
        for key, one in matches.items()
    }
    return PartFindings(list(bare.values()), tolerated, light, measures, curve)


def _bare(track: ResultTrack) -> ResultTrack:
    areas = _SOMETHING if track.areas.any() else _NOTHING
    return track._replace(segmentations=[], areas=areas)


def main(words: str) -> None:
    """Runs a worker; writes its findings to stdout, and ends the process."""
    start, stop, *fields = json.loads(words)
    job = ScoringJob(*fields)
    try:
        truth = load_truth(job.truth, official_quirks=job.official_quirks)
    except FormatError:  # reported by the first process
        return
    found = _find_part(job, truth, (start, stop))
    sys.stdout.buffer.write(pickle.dumps(found, pickle.HIGHEST_PROTOCOL))
    sys.stdout.flush()
    os._exit(0)  # without freeing every mask while the first process waits

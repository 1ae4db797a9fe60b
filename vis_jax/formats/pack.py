"""Packs results for an evaluation server, after checking that it would accept them."""

import os
import shutil
import zipfile
from collections import Counter
from typing import NamedTuple

from vis_jax.formats.disk import replaced
from vis_jax.formats.json_checks import FormatError
from vis_jax.formats.results_json import find_defects, load_results
from vis_jax.formats.tracks import MAX_PREDICTIONS, Id
from vis_jax.formats.truth_json import load_videos
from vis_jax.formats.unpack import open_unpacked

NAME = "results.json"  # required by the servers at the top of the archive


class Packed(NamedTuple):
    """Summary of a packed archive."""

    predictions: int
    videos_without: list[Id]  # ids of videos without predictions
    beyond_limit: int  # predictions a server ignores: over 100 of one category


def pack(
    results_path: str | os.PathLike,
    videos_path: str | os.PathLike,
    archive_path: str | os.PathLike,
) -> Packed:
    """Writes a zip with results.json, atomically.

    Args:
      results_path: results file.
      videos_path: file with the videos and categories of the split; annotations are
        optional.
      archive_path: output zip.

    Raises:
      FormatError: a server would reject the file; `results_json.find_defects` lists
        every reason.
    """
    truth = load_videos(videos_path)
    defects = find_defects(results_path, truth)
    if defects:
        more = f" (and {len(defects) - 1} more)" if len(defects) > 1 else ""
        raise FormatError(defects[0] + more)
    results = load_results(results_path, truth, official_quirks=False)
    groups = Counter((track.video_id, track.category_id) for track in results.tracks)
    _write_archive(results_path, archive_path)
    return Packed(
        predictions=len(results.tracks),
        videos_without=sorted(truth.videos.keys() - {video for video, _ in groups}),
        beyond_limit=sum(max(0, n - MAX_PREDICTIONS[-1]) for n in groups.values()),
    )


def _write_archive(
    results_path: str | os.PathLike, archive_path: str | os.PathLike
) -> None:
    # A fixed date makes archives reproducible.
    entry = zipfile.ZipInfo(NAME, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    with (
        open_unpacked(results_path) as source,
        replaced(archive_path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        archive.open(entry, "w", force_zip64=True) as target,
    ):
        shutil.copyfileobj(source, target)

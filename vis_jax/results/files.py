"""Writes result files mask by mask, without building them in memory."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vis_jax.formats.disk import replacing
from vis_jax.formats.json_checks import write_json
from vis_jax.formats.rle import plain_mask

if TYPE_CHECKING:
    from vis_jax.results.video import VideoResult

RESULTS, INFO = "results.json", "video.json"


def entry_pieces(
    result: "VideoResult",
    *,
    video_id: int,
    category_ids: Sequence[int],
    with_ids: bool = False,
) -> Iterator[str]:
    """Yields JSON "{..}, {..}", the entries of a results file, in small pieces.

    In brackets, they equal `json.dumps` of `video_entries`.

    Args:
      result: the tracks.
      video_id: id of the video in the ground truth.
      category_ids: K ids, one per label.
      with_ids: also write `track_id`, which scoring ignores.
    """
    for i, (label, score) in enumerate(zip(result.labels, result.scores, strict=True)):
        head = {
            "video_id": int(video_id),
            "category_id": int(category_ids[label]),
            "score": float(score),
        }
        if with_ids:
            head["track_id"] = int(result.track_ids[i])
        yield ", " if i else ""
        yield json.dumps(head, allow_nan=False)[:-1] + ', "segmentations": ['
        for t, rle in enumerate(result.segmentations[i]):
            yield (", " if t else "") + json.dumps(
                None if rle is None else plain_mask(rle)
            )
        yield "]}"


def write_results(
    path: str | os.PathLike,
    result: "VideoResult",
    *,
    video_id: int,
    category_ids: Sequence[int],
) -> None:
    """Writes the results file of one video, with `track_id` in every entry.

    Args:
      path: results.json.
      result, video_id, category_ids: as in `entry_pieces`.

    Raises:
      OSError: it cannot be written, as on a full disk; names the file.
    """
    with replacing(path) as file:
        file.write("[")
        file.writelines(
            entry_pieces(
                result, video_id=video_id, category_ids=category_ids, with_ids=True
            )
        )
        file.write("]\n")


def write_info(
    path: str | os.PathLike, result: "VideoResult", *, video_id: int
) -> None:
    """Writes the video and the categories that a results file refers to.

    Fields are named as in the YouTube-VIS annotations.

    Raises:
      OSError: it cannot be written, as on a full disk; names the file.
    """
    video = {
        "id": video_id,
        "name": result.name,
        "height": result.height,
        "width": result.width,
        "length": result.num_frames,
        "file_names": result.frame_names(),
        "fps": None if result.fps is None else float(result.fps),
    }
    content = {
        "videos": [video],
        "categories": [{"id": int(i), "name": name} for i, name in result.categories],
        # One for each entry of the results, in the same order.
        "track_ids": result.track_ids.tolist(),
    }
    write_json(path, content, indent=2)

"""Checks the id, boxes and areas of a track against its masks."""

from collections.abc import Callable

import numpy as np

from data_pipeline.datasets.dataset import Video
from data_pipeline.datasets.ytvis_json import AnnotatedTrack, is_box, is_number
from data_pipeline.errors import Fail, Report
from vis_jax.formats.rle import Runs, areas_of_runs, boxes_of_runs, take_runs

# Tools differ in whether the last pixel is included and in polygon rasterisation.
_BOX_SLACK = 1.0  # pixels, each side
_AREA_SLACK = 0.01  # share of the pixels, beside one pixel


def check_numbers(
    entry: dict,
    track: AnnotatedTrack,
    runs: Runs,
    video: Video,
    fail: Fail,
    warning: Report,
) -> None:
    """Compares an annotation's id, boxes and areas with its masks.

    Args:
      entry: the annotation, as in the file.
      track: the parsed annotation.
      runs: the masks of all tracks.
      video: video of the track.
      fail: makes the error from `field`, `expected` and `got`.
      warning: receives a line per difference. Tolerances: boxes one pixel per side,
        areas one pixel and 1 %, plus the outline for polygons.
    """
    if type(entry.get("id")) is int and entry["id"] < 1:
        expected = "1 or more: the official evaluator takes 0 for no match"
        warning(fail(field="id", expected=expected, got=entry["id"]))
    seen = track.mask_index >= 0
    masks = take_runs(runs, track.mask_index[seen])
    corners = np.zeros((len(seen), 4))
    corners[seen] = boxes_of_runs(masks, video.height)
    areas = np.zeros(len(seen))
    areas[seen] = areas_of_runs(masks)
    sizes = corners[:, 2:] - corners[:, :2]
    boxes = np.concatenate([corners[:, :2], sizes], 1)
    found = _numbers(entry.get("bboxes"), len(seen), is_box, [0, 0, 0, 0])
    if found is not None:
        there = (found[:, 2:] > 0).all(1)
        found[:, 2:] += found[:, :2]
        far = (np.abs(found - corners) > _BOX_SLACK).any(1)
        _warn("bboxes", np.where(seen, far, there), boxes, entry, fail, warning)
    found = _numbers(entry.get("areas"), len(seen), is_number, 0)
    if found is not None:
        drawn = [isinstance(one, list) for one in entry["segmentations"]]
        slack = 1 + _AREA_SLACK * areas + np.where(drawn, sizes.sum(1), 0)
        far = np.abs(found - areas) > np.where(seen, slack, 0)
        _warn("areas", far, areas, entry, fail, warning)


def _numbers(
    values: object, length: int, sound: Callable[[object], bool], absent: object
) -> np.ndarray | None:
    """Returns the values of a list, 0 for null; None if it cannot be compared."""
    if not isinstance(values, list) or len(values) != length:
        return None
    if not all(value is None or sound(value) for value in values):
        return None
    return np.array([absent if value is None else value for value in values], float)


def _warn(
    key: str,
    differs: np.ndarray,
    of_masks: np.ndarray,
    entry: dict,
    fail: Fail,
    warning: Report,
) -> None:
    """Reports, in one line, the first differing frame and how many more differ."""
    frames = np.flatnonzero(differs)
    if not frames.size:
        return
    first = int(frames[0])
    value = of_masks[first].astype(int).tolist()
    expected = f"{value}, as the mask has" if np.any(value) else "null, as the mask"
    got = repr(entry[key][first]).replace("None", "null")
    if frames.size > 1:
        got += f" (and {frames.size - 1} more frames that differ)"
    warning(fail(field=f"{key}[{first}]", expected=expected, got=got))

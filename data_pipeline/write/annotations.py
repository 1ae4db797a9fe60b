"""Converts any data set to YouTube-VIS annotations.

Fields as in YouTube-VIS 2021; `occlusion` as in OVIS. Needs pycocotools.
"""

from collections.abc import Iterable

import numpy as np
from pycocotools import mask as coco_mask

from data_pipeline.datasets.dataset import Dataset, Video, VideoTruth
from vis_jax.formats.occlusion import occlusion_word
from vis_jax.formats.rle import plain_mask


def to_ytvis(dataset: Dataset, indices: Iterable[int] | None = None) -> dict:
    """Returns categories, videos and tracks, ready for `json.dump`.

    Annotation ids count from 1. Tracks that are never visible are dropped, as the
    format cannot represent them.

    Args:
      dataset: data set to convert.
      indices: videos to convert, consumed one by one (e.g. through a progress bar);
        None: all.
    """
    videos: list[dict] = []
    annotations: list[dict] = []
    for index in range(len(dataset.videos)) if indices is None else indices:
        video = dataset.videos[index]
        videos.append(_video_entry(video))
        for track in _track_entries(dataset, video, dataset.truth(index)):
            annotations.append({"id": len(annotations) + 1, **track})
    return {
        "info": {"description": "YouTube-VIS format"},
        "licenses": [],
        "videos": videos,
        "categories": [
            {"id": c.category_id, "name": c.name, "supercategory": "object"}
            for c in dataset.categories
        ],
        "annotations": annotations,
    }


def _video_entry(video: Video) -> dict:
    return {
        "id": video.video_id,
        "name": video.name,
        "height": video.height,
        "width": video.width,
        "length": video.length,
        "file_names": list(video.file_names),
    }


def _track_entries(dataset: Dataset, video: Video, truth: VideoTruth) -> list[dict]:
    """Makes the annotations of a video, without ids."""
    return [
        {
            "video_id": video.video_id,
            "category_id": dataset.categories[truth.labels[m]].category_id,
            "iscrowd": int(truth.crowd[m]),
            "height": video.height,
            "width": video.width,
            "length": video.length,
            **_frame_lists(truth, m),
        }
        for m, seen in enumerate(np.any(truth.present, axis=1))
        if seen
    ]


def _frame_lists(truth: VideoTruth, m: int) -> dict[str, list]:
    """Makes the per-frame lists of a track, null where absent."""
    seen = truth.present[m]
    runs = truth.segmentations[m]
    corners = truth.boxes[m].astype(float)
    sizes = corners[:, 2:] - corners[:, :2]
    boxes = np.concatenate([corners[:, :2], sizes], 1).tolist()
    lists: dict[str, list] = {
        "segmentations": [None if run is None else plain_mask(run) for run in runs],
        "bboxes": [
            box if here else None for box, here in zip(boxes, seen, strict=True)
        ],
        "areas": [int(coco_mask.area(r)) if r is not None else None for r in runs],
    }
    shares = np.where(seen, truth.occlusion[m], np.nan)
    if not np.isnan(shares).all():
        lists["occlusion"] = [occlusion_word(float(share)) for share in shares]
    return lists

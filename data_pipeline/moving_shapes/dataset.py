"""Moving shapes: an endless synthetic data set with exact ground truth.

Textured shapes of eight categories move over textured backgrounds, cross, occlude each
other, leave and return. A video depends only on (split, seed, index), and any frame can
be rendered on its own. Rendering needs NumPy only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.datasets.dataset import Category, ClipArrays, Video, VideoTruth
from data_pipeline.moving_shapes.motion import DIFFICULTIES
from data_pipeline.moving_shapes.render import Rendered, render_scene
from data_pipeline.moving_shapes.scene import Scene, draw_scene
from data_pipeline.moving_shapes.silhouettes import SILHOUETTES
from data_pipeline.settings import Shapes
from vis_jax.settings import read_settings

SPLITS = ("train", "val", "test")


class MovingShapes:
    """Moving-shapes `Dataset`, with `render` for frames and ground truth together.

    Args:
      split: "train", "val" or "test"; their videos are independent.
      **fields: fields of `data_pipeline.settings.Shapes`, which has the defaults.

    Raises:
      ValueError: a field is unknown or out of range.
    """

    def __init__(self, split: str = "train", **fields: Any) -> None:
        if split not in SPLITS:
            raise ValueError(f"data.split: expected one of {SPLITS}, got {split!r}")
        shapes = read_settings(Shapes, fields, "data.shapes")
        span = shapes.length
        shortest, longest = (span, span) if isinstance(span, int) else span
        self._key = (SPLITS.index(split), shapes.seed)
        self._level = DIFFICULTIES[shapes.difficulty]
        self._last: tuple[int, Scene | None] = (0, None)
        self.categories = tuple(
            Category(i, name) for i, name in enumerate(SILHOUETTES, start=1)
        )
        lengths = np.random.default_rng((*self._key, 1)).integers(
            shortest, longest + 1, shapes.num_videos
        )
        prefix = f"{shapes.difficulty}_{split}_{shapes.seed}"
        self.videos = tuple(
            _video(i, f"{prefix}_{i:05d}", shapes.height, shapes.width, int(n))
            for i, n in enumerate(lengths)
        )

    def render(self, index: int, frame_ids: Sequence[int] | np.ndarray) -> Rendered:
        """Renders frames of video `index` with masks, boxes and identities.

        The tracks are those of the whole video, so M and the order of the tracks do not
        depend on `frame_ids`.

        Raises:
          ValueError: a frame is beyond the video.
        """
        video = self.videos[index]
        frame_ids = np.asarray(frame_ids, np.int64).reshape(-1)
        if ((frame_ids < 0) | (frame_ids >= video.length)).any():
            raise ValueError(
                f"frame_ids of {video.name}: expected 0 .. {video.length - 1},"
                f" got {frame_ids.tolist()}"
            )
        return render_scene(self.scene(index), frame_ids)

    def scene(self, index: int) -> Scene:
        """Returns the random choices of video `index`."""
        video = self.videos[index]
        # Caches the last scene, as a video is often read clip by clip. Assigned as a
        # pair, so that threads never see half of it.
        last_id, scene = self._last
        if scene is None or last_id != video.video_id:
            scene = self._draw(video)
            self._last = (video.video_id, scene)
        return scene

    def _draw(self, video: Video) -> Scene:
        return draw_scene(
            np.random.default_rng((*self._key, 0, video.video_id - 1)),
            self._level,
            length=video.length,
            height=video.height,
            width=video.width,
        )

    def read_frames(self, index: int, frame_ids: np.ndarray) -> np.ndarray:
        """Renders frames `frame_ids` of video `index`: RGB uint8 [T, H, W, 3]."""
        return self.render(index, frame_ids).images

    def read_clip(self, index: int, frame_ids: np.ndarray) -> ClipArrays:
        """Renders frames of video `index` with the masks of all its instances."""
        drawn = self.render(index, frame_ids)
        return ClipArrays(drawn.images, drawn.masks, drawn.labels, drawn.track_ids)

    def truth(self, index: int) -> VideoTruth:
        """Returns the tracks of video `index` over all its frames."""
        video = self.render(index, np.arange(self.videos[index].length))
        return VideoTruth(
            labels=video.labels,
            track_ids=video.track_ids,
            crowd=np.zeros(len(video.labels), bool),
            boxes=video.boxes,
            present=video.present,
            occlusion=video.occlusion,
            segmentations=_run_lengths(video.masks, video.present),
        )


def _video(index: int, name: str, height: int, width: int, length: int) -> Video:
    files = tuple(f"{name}/{t:05d}.jpg" for t in range(length))
    return Video(index + 1, name, height, width, length, files)


def _run_lengths(
    masks: np.ndarray, present: np.ndarray
) -> tuple[tuple[dict | None, ...], ...]:
    """Encodes masks [M, T, H, W] as run lengths [M][T]; None where absent."""
    from pycocotools import mask as coco_mask

    return tuple(
        tuple(
            coco_mask.encode(np.asfortranarray(mask, np.uint8)) if seen else None
            for mask, seen in zip(track, seen_track, strict=True)
        )
        for track, seen_track in zip(masks, present, strict=True)
    )

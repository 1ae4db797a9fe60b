"""Tracks of one video, and their conversion to output formats."""

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vis_jax.formats.results_json import video_entries
from vis_jax.formats.rle import plain_mask
from vis_jax.results.files import INFO, RESULTS, write_info, write_results
from vis_jax.results.frame import boxes_of, masks_of, without_overlap

if TYPE_CHECKING:
    from supervision import Detections

VIDEO_ID = 1  # id of a results file's only video
_COLUMNS = ("frame", "time", "id", "label", "score", "x1", "y1", "x2", "y2", "area")


class TrackEntry(NamedTuple):
    """One entry of a video's result, without its masks."""

    id: int  # 1, 2, ..
    label: str  # name of its class
    score: float  # in [0, 1]


@dataclass(frozen=True, eq=False)
class VideoResult:
    """Tracks of one video: N entries, best score first, over T frames.

    A track of uncertain class may have several entries with the same id and masks.
    Masks of a long video stay on disk and are read on access.
    """

    labels: np.ndarray  # int32 [N], 0 .. K - 1
    scores: np.ndarray  # float32 [N], in [0, 1]
    track_ids: np.ndarray  # int32 [N], 1, 2, ..
    # [N][T] RLE masks {"size": [H, W], "counts": bytes or str}; None or an empty mask
    # where the track is absent.
    segmentations: Sequence[Sequence[dict | None]] = field(repr=False)
    height: int  # pixels
    width: int
    num_frames: int
    fps: Fraction | None = None  # frames per second; None: unknown
    categories: tuple[tuple[int, str], ...] = ()  # (category id, name) of the labels
    name: str = "video"
    file_names: tuple[str, ...] = field(default=(), repr=False)  # (): made from `name`

    @property
    def tracks(self) -> list[TrackEntry]:
        """All entries, in the order of `masks(t)` and `boxes(t)`.

        Without categories, labels are numbers as text.
        """
        names = [name for _, name in self.categories]
        columns = (self.track_ids.tolist(), self.labels.tolist(), self.scores.tolist())
        return [
            TrackEntry(number, names[label] if names else str(label), score)
            for number, label, score in zip(*columns, strict=True)
        ]

    @property
    def best_entries(self) -> np.ndarray:
        """Index of the entry with the best score of each track, in order: int [n]."""
        order = np.argsort(-self.scores, kind="stable")
        _, first = np.unique(self.track_ids[order], return_index=True)
        return np.sort(order[first])

    def shown(self, threshold: float) -> "VideoResult":
        """Returns the best entry of every track with at least this score."""
        best = [i for i in self.best_entries if self.scores[i] >= threshold]
        return dataclasses.replace(
            self,
            labels=self.labels[best],
            scores=self.scores[best],
            track_ids=self.track_ids[best],
            segmentations=[self.segmentations[i] for i in best],
        )

    def masks(self, t: int) -> np.ndarray:
        """Returns the masks of all entries in frame `t`: bool [N, H, W]."""
        masks = np.zeros((len(self.scores), self.height, self.width), bool)
        visible, found = self._in_frame(t, range(len(masks)))
        masks[visible] = masks_of(found, (self.height, self.width))
        return masks

    def boxes(self, t: int) -> np.ndarray:
        """Returns the boxes of `masks(t)`: float32 [N, 4], x1 y1 x2 y2 in pixels.

        The box of an empty mask is zero.
        """
        boxes = np.zeros((len(self.scores), 4), np.float32)
        visible, found = self._in_frame(t, range(len(boxes)))
        boxes[visible] = boxes_of(found)
        return boxes

    def _in_frame(self, t: int, entries: Sequence[int]) -> tuple[list[int], list[dict]]:
        """Returns the entries with an RLE in a frame, and these RLEs."""
        pairs = [(i, self.segmentations[i][t]) for i in entries]
        return (
            [i for i, rle in pairs if rle is not None],
            [rle for _, rle in pairs if rle is not None],
        )

    def _shown(self, t: int) -> tuple[np.ndarray, list[dict]]:
        """Returns the best entries with a non-empty mask in a frame, and their RLEs."""
        from pycocotools import mask as coco_mask

        entries, found = self._in_frame(t, self.best_entries.tolist())
        areas = coco_mask.area(found) if found else []
        visible = [i for i, area in enumerate(areas) if area]
        return np.array(entries, int)[visible], [found[i] for i in visible]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `results.json` and `video.json` into a folder, as `predict` does.

        Args:
          folder: created with its parents if missing; existing files are replaced.

        Raises:
          OSError: a file cannot be written, as on a full disk; names the file.
          ValueError: there are no categories.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        ids = self._category_ids()
        # Results are written last, so that their presence implies the rest.
        write_info(folder / INFO, self, video_id=VIDEO_ID)
        write_results(folder / RESULTS, self, video_id=VIDEO_ID, category_ids=ids)

    def to_ytvis(self, video_id: int = VIDEO_ID) -> list[dict]:
        """Returns the entries of a YouTube-VIS results file, with track ids.

        Raises:
          ValueError: there are no categories.
        """
        entries = video_entries(
            self.labels,
            self.scores,
            self.segmentations,
            video_id=video_id,
            category_ids=self._category_ids(),
        )
        pairs = zip(entries, self.track_ids.tolist(), strict=True)
        return [entry | {"track_id": number} for entry, number in pairs]

    def to_coco(self) -> dict:
        """Returns images, annotations and categories in COCO format, as JSON values.

        Image t + 1 is frame t. Each entry has an annotation in each frame with a mask,
        with `score` and `track_id` in addition to the fields of COCO.

        Raises:
          ValueError: there are no categories.
        """
        ids = self._category_ids()
        size = {"height": self.height, "width": self.width}
        images = [
            {"id": t + 1, "file_name": name} | size
            for t, name in enumerate(self.frame_names())
        ]
        annotations: list[dict] = []
        for t in range(self.num_frames):
            entries, found = self._in_frame(t, range(len(self.scores)))
            for annotation, i in zip(_annotations(found), entries, strict=True):
                if not annotation["area"]:
                    continue
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": t + 1,
                        "category_id": ids[self.labels[i]],
                        "track_id": int(self.track_ids[i]),
                        "score": float(self.scores[i]),
                    }
                    | annotation
                )
        categories = [{"id": int(i), "name": name} for i, name in self.categories]
        return {"images": images, "annotations": annotations, "categories": categories}

    def to_mot(self) -> str:
        """Formats the boxes of the tracks as a MOTChallenge results file.

        A line has frame, id, left, top, width, height, score and three times -1; frames
        and pixels count from 1. Classes are left out.
        """
        lines = []
        for t in range(self.num_frames):
            entries, found = self._shown(t)
            boxes = boxes_of(found)
            rows = sorted(zip(self.track_ids[entries], boxes, entries, strict=True))
            for number, (x1, y1, x2, y2), i in rows:
                box = f"{x1 + 1:g},{y1 + 1:g},{x2 - x1:g},{y2 - y1:g}"
                lines.append(f"{t + 1},{number},{box},{self.scores[i]:.6f},-1,-1,-1\n")
        return "".join(lines)

    def to_mots(self) -> str:
        """Formats the masks of the tracks as a MOTS results file.

        A line has frame, id, category id, height, width and RLE; frames count from 1.
        As the format requires, the id is 1000 x category id + track id, and a pixel of
        several masks belongs to the one with the best score.

        Raises:
          ValueError: there are no categories.
        """
        ids = self._category_ids()
        lines = []
        for t in range(self.num_frames):
            entries, found = self._shown(t)
            order = np.argsort(-self.scores[entries], kind="stable")
            apart = without_overlap([found[i] for i in order])
            for i, rle in zip(entries[order], apart, strict=True):
                if rle is None:
                    continue
                category = ids[self.labels[i]]
                number = 1000 * category + int(self.track_ids[i])
                counts = rle["counts"]
                text = counts.decode() if isinstance(counts, bytes) else counts
                size = f"{self.height} {self.width}"
                lines.append(f"{t + 1} {number} {category} {size} {text}\n")
        return "".join(lines)

    def to_csv(self) -> str:
        """Formats the boxes of the tracks as CSV, with a row per object and frame.

        Columns: frame from 0, time in seconds (empty if the frame rate is unknown), id,
        label, score, x1 y1 x2 y2 and area in pixels.
        """
        from pycocotools import mask as coco_mask

        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_COLUMNS)
        tracks = self.tracks
        for t in range(self.num_frames):
            entries, found = self._shown(t)
            time = "" if self.fps is None else f"{float(t / self.fps):g}"
            boxes = boxes_of(found).astype(int).tolist()
            areas = coco_mask.area(found).tolist() if found else []
            for i, box, area in zip(entries, boxes, areas, strict=True):
                track = tracks[i]
                score = round(track.score, 6)
                table.writerow([t, time, track.id, track.label, score, *box, area])
        return text.getvalue()

    def to_supervision(self, t: int) -> "Detections":
        """Converts frame `t` to `supervision.Detections`, each track's best entry.

        Raises:
          ImportError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise ImportError(
                "to_supervision: expected the package supervision, which is not"
                " installed; pip install supervision"
            ) from error
        entries, found = self._shown(t)
        names = [name for _, name in self.categories]
        known = [names[label] for label in self.labels[entries]] if names else []
        return Detections(
            xyxy=boxes_of(found),
            mask=masks_of(found, (self.height, self.width)),
            confidence=self.scores[entries],
            class_id=self.labels[entries].astype(int),
            tracker_id=self.track_ids[entries].astype(int),
            data={"class_name": np.array(known, str)} if names else {},
        )

    def frame_names(self) -> list[str]:
        """Returns a file name for each frame, as in the YouTube-VIS annotations."""
        names = (f"{self.name}/{t:05d}.jpg" for t in range(self.num_frames))
        return list(self.file_names or names)

    def _category_ids(self) -> list[int]:
        if not self.categories:
            raise ValueError("categories: expected one for each label, got none")
        return [int(number) for number, _ in self.categories]


def _annotations(segmentations: list[dict]) -> list[dict]:
    """Returns mask, area and box (left, top, width, height) as in COCO annotations."""
    from pycocotools import mask as coco_mask

    if not segmentations:
        return []
    areas = coco_mask.area(segmentations).tolist()
    boxes = coco_mask.toBbox(segmentations).tolist()
    return [
        {"segmentation": plain_mask(rle), "area": area, "bbox": box, "iscrowd": 0}
        for rle, area, box in zip(segmentations, areas, boxes, strict=True)
    ]

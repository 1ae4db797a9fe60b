"""Writes two small videos of moving shapes in the layouts of other data sets."""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from data_pipeline.moving_shapes.dataset import MovingShapes
from data_pipeline.write.annotations import to_ytvis

HEIGHT, WIDTH, LENGTH = 48, 64, 4
SHAPES = MovingShapes(
    "val", num_videos=2, length=LENGTH, height=HEIGHT, width=WIDTH, difficulty="medium"
)
NAMES = [category.name for category in SHAPES.categories]


def true_tracks(index: int) -> list[tuple[str, list[np.ndarray]]]:
    """Returns category and masks [T] of [H, W] of each object in a video."""
    drawn = SHAPES.render(index, range(LENGTH))
    return [
        (NAMES[label], list(masks))
        for label, masks in zip(drawn.labels, drawn.masks, strict=True)
    ]


def write_frames(folder: Path, index: int, name: str = "{:05d}.jpg") -> list[Path]:
    """Writes the frames of a video; `name` is formatted with the frame number."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name.format(t) for t in range(LENGTH)]
    for t, file in enumerate(files):
        Image.fromarray(SHAPES.render(index, [t]).images[0]).save(file)
    return files


def rectangles(mask: np.ndarray) -> list[list[float]]:
    """Returns polygons whose union equals the mask: one for each run of a row."""
    found = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]]).astype(int)))
        for x1, x2 in edges.reshape(-1, 2).astype(float):
            found.append([x1, y, x2, y, x2, y + 1.0, x1, y + 1.0])
    return found


def run_lengths(mask: np.ndarray) -> dict:
    runs = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def as_ytvis(root: Path, arrangement: str) -> None:
    """Writes YouTube-VIS in one of three arrangements."""
    images = {"2021": "train/JPEGImages", "inside": "JPEGImages", "ovis": "train"}
    file = {
        "2021": "train/instances.json",
        "inside": "JPEGImages/train.json",
        "ovis": "annotations/annotations_train.json",
    }[arrangement]
    for index, video in enumerate(SHAPES.videos):
        write_frames(root / images[arrangement] / video.name, index)
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps(to_ytvis(SHAPES)))


def as_davis(root: Path) -> None:
    """Writes palette PNGs with arbitrary colours."""
    palette = np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes()
    for index, video in enumerate(SHAPES.videos):
        write_frames(root / "JPEGImages/480p" / video.name, index)
        folder = root / "Annotations/480p" / video.name
        folder.mkdir(parents=True)
        for t in range(LENGTH):
            ids = np.zeros((HEIGHT, WIDTH), np.uint8)
            for number, (_, masks) in enumerate(true_tracks(index), start=1):
                ids[masks[t]] = number
            image = Image.fromarray(ids)
            image.putpalette(palette)
            image.save(folder / f"{t:05d}.png")
    (root / "ImageSets/2017").mkdir(parents=True)
    names = "\n".join(video.name for video in SHAPES.videos)
    (root / "ImageSets/2017/train.txt").write_text(names)


def mots_id(number: int) -> int:
    """Returns a MOTS id; cars and pedestrians alternate."""
    return 1000 * (1 + number % 2) + number


def as_mots_pngs(root: Path) -> None:
    for index in range(2):
        name = f"{index:04d}"
        write_frames(root / "training/image_02" / name, index, "{:06d}.png")
        (root / "instances" / name).mkdir(parents=True)
        for t in range(LENGTH):
            ids = np.zeros((HEIGHT, WIDTH), np.uint16)
            for number, (_, masks) in enumerate(true_tracks(index)):
                ids[masks[t]] = mots_id(number)
            ids[(ids == 0) & (np.arange(WIDTH) < 3)] = 10_000
            Image.fromarray(ids).save(root / "instances" / name / f"{t:06d}.png")


def as_mots_texts(root: Path) -> None:
    for index in range(2):
        folder = root / f"train/MOTS20-{index:02d}"
        write_frames(folder / "img1", index, "{:06d}.jpg")
        lines = [
            f"{t} {mots_id(n)} {mots_id(n) // 1000} {HEIGHT} {WIDTH} "
            + run_lengths(masks[t])["counts"]
            for t in range(LENGTH)
            for n, (_, masks) in enumerate(true_tracks(index))
            if masks[t].any()
        ]
        (folder / "gt").mkdir()
        (folder / "gt/gt.txt").write_text("\n".join(lines))


def as_coco(root: Path) -> None:
    """Writes polygons in one video, RLE in the other, frames out of order."""
    images, annotations = [], []
    for index, video in enumerate(SHAPES.videos):
        files = write_frames(root / "images" / video.name, index)
        size = {"height": HEIGHT, "width": WIDTH}
        for t, file in enumerate(files):
            number = 100 * index + t
            name = f"{video.name}/{file.name}"
            images.insert(0, {"id": number, "file_name": name, "frame_id": t, **size})
            for m, (category, masks) in enumerate(true_tracks(index)):
                if masks[t].any():
                    encode = run_lengths if index else rectangles
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": number,
                            "category_id": NAMES.index(category) + 1,
                            "track_id": m,
                            "segmentation": encode(masks[t]),
                        }
                    )
    categories = [{"id": k, "name": name} for k, name in enumerate(NAMES, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / "annotations").mkdir()
    (root / "annotations/train.json").write_text(json.dumps(content))


def as_labelme(root: Path) -> None:
    """Writes groups of rectangles; the second video has masks within boxes."""
    for index, video in enumerate(SHAPES.videos):
        for t, file in enumerate(write_frames(root / video.name, index, "f{}.png")):
            shapes = []
            for m, (category, masks) in enumerate(true_tracks(index)):
                parts = (_labelme_mask if index else _labelme_parts)(masks[t])
                shapes += [part | {"label": category, "group_id": m} for part in parts]
            content = {
                "version": "5.5.0",
                "imagePath": file.name,
                "imageHeight": HEIGHT,
                "imageWidth": WIDTH,
                "imageData": None,
                "shapes": shapes,
            }
            file.with_suffix(".json").write_text(json.dumps(content))


def _labelme_parts(mask: np.ndarray) -> list[dict]:
    return [
        {"shape_type": "polygon", "points": np.reshape(p, (-1, 2)).tolist()}
        for p in rectangles(mask)
    ]


def _labelme_mask(mask: np.ndarray) -> list[dict]:
    if not mask.any():
        return []
    top, left, inner = _inner(mask)
    data = io.BytesIO()
    Image.fromarray(inner).save(data, "PNG")
    text = base64.b64encode(data.getvalue()).decode()
    bottom, right = top + inner.shape[0] - 1, left + inner.shape[1] - 1
    points = [[float(left), float(top)], [float(right), float(bottom)]]
    return [{"shape_type": "mask", "points": points, "mask": text}]


def _inner(mask: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Returns top, left and the part of a mask within its box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1]


def as_cvat(root: Path) -> None:
    """Writes masks as row-major run lengths in a box; "outside" if absent."""
    for index, video in enumerate(SHAPES.videos):
        write_frames(root / video.name / "images", index, "frame_{:06d}.PNG")
        lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>"]
        lines.append("<version>1.1</version><meta><task><id>1</id></task></meta>")
        for m, (category, masks) in enumerate(true_tracks(index)):
            lines.append(f'<track id="{m}" label="{category}" source="manual">')
            lines += [_cvat_mask(t, mask) for t, mask in enumerate(masks)]
            lines.append("</track>")
        lines.append("</annotations>")
        (root / video.name / "annotations.xml").write_text("\n".join(lines))


def _cvat_mask(frame: int, mask: np.ndarray) -> str:
    if not mask.any():
        box = 'xtl="1" ytl="1" xbr="9" ybr="9"'
        return f'<box frame="{frame}" outside="1" occluded="0" {box}/>'
    top, left, inner = _inner(mask)
    flat = np.concatenate([[False], inner.reshape(-1)])
    counts = np.diff([0, *np.flatnonzero(np.diff(flat)), inner.size])
    height, width = inner.shape
    place = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    rle = ", ".join(map(str, counts))
    return f'<mask frame="{frame}" outside="0" rle="{rle}" {place}/>'

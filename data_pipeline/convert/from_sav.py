"""Converts SA-V, the data set of SAM 2: a JSON file of masklets per video.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024. `masklet[i][n]` is
the mask of object n in annotated frame i, every fourth of the video. Objects have no
class. Frames are image files.
"""

from functools import partial
from pathlib import Path

from data_pipeline.convert.foreign import (
    DetectedLayout,
    Foreign,
    ForeignTrack,
    ForeignVideo,
    convert,
)
from data_pipeline.convert.json_layout import show
from data_pipeline.convert.source_folder import (
    SourceFolder,
    frame_number,
    image_size,
)
from data_pipeline.errors import DataError, Fail, shorten
from data_pipeline.file_names import IMAGE_SUFFIXES

LOOKED_FOR = (
    "<video>_manual.json or <video>_auto.json with 'masklet' (SA-V), and the frames in"
    " <video>/, frames/<video>/ or JPEGImages_24fps/<video>/"
)
_KINDS = ("_manual", "_auto")  # the first is preferred
_FRAMES = ("", "frames", "JPEGImages", "JPEGImages_24fps")
_MAX_JSON = 2**30  # bytes, of a video


def find(source: SourceFolder, category: str) -> DetectedLayout | None:
    """Recognises masklets by the names of their files and the first of them.

    Raises:
      DataError: a file with such a name is not a JSON object.
    """
    for place in source.candidates("{split}", ""):
        kinds = {kind: _files(source, place, kind) for kind in _KINDS}
        files = kinds["_auto"] | kinds["_manual"]
        if not files:
            continue
        first = files[min(files)]
        if not isinstance(source.json(first, _MAX_JSON).get("masklet"), list):
            continue
        both = len(kinds["_auto"].keys() & kinds["_manual"].keys())
        notes = (f"the automatic masklets of {both} videos that have manual ones",)
        made = partial(_read, source, place, files, category, notes if both else ())
        return DetectedLayout(
            "sav", f"{show(source, first)} has a list 'masklet'", made
        )
    return None


def _files(source: SourceFolder, place: Path, kind: str) -> dict[str, Path]:
    """Finds masklet files by video name."""
    found = source.files(place, ".json")
    return {
        file.stem.removesuffix(kind): file for file in found if file.stem.endswith(kind)
    }


def _read(
    source: SourceFolder,
    place: Path,
    files: dict[str, Path],
    category: str,
    notes: tuple[str, ...],
) -> Foreign:
    videos, owners = [], []
    for name in sorted(files):
        images = _images(source, place, name, files[name])
        videos.append(ForeignVideo(name, images, image_size(images[0])))
        owners.append(files[name])

    def tracks(index: int) -> list[ForeignTrack]:
        return _tracks(source, owners[index], videos[index], category)

    return Foreign(tuple(videos), tracks, None, lambda: notes)


def _images(
    source: SourceFolder, place: Path, name: str, file: Path
) -> tuple[Path, ...]:
    """Finds the images of the annotated frames, by frame number.

    Raises:
      DataError: the folder of the video, or an image in it, is missing.
    """
    folders = [place / inner / name for inner in _FRAMES]
    folder = next((one for one in folders if one.is_dir()), None)
    if folder is None:
        shown = ", ".join(show(source, one) for one in folders)
        expected = f"frames as images, as `data extract` writes them, in {shown}"
        raise DataError(file, video=name, expected=expected, got="none")
    count, step = _annotated(source, file, name)
    numbered = {
        frame_number(image): image for image in source.files(folder, *IMAGE_SUFFIXES)
    }
    missing = next((k for k in range(0, count * step, step) if k not in numbered), None)
    if missing is not None:
        expected = f"images numbered 0 to {(count - 1) * step} in steps of {step}"
        got = f"{len(numbered)} images, none of them numbered {missing}"
        raise DataError(folder, video=name, expected=expected, got=got)
    return tuple(numbered[k] for k in range(0, count * step, step))


def _annotated(source: SourceFolder, file: Path, name: str) -> tuple[int, int]:
    """Returns the number of annotated frames and their interval.

    Raises:
      DataError: the file lacks them or is inconsistent.
    """
    content, fail = source.json(file, _MAX_JSON), partial(DataError, file, video=name)
    if content.get("video_id", name) != name:
        expected = f"{name}, as the name of the file"
        raise fail(field="video_id", expected=expected, got=content["video_id"])
    masklets, total = (
        content.get("masklet", "nothing"),
        content.get("video_frame_count"),
    )
    if not isinstance(masklets, list) or not masklets:
        raise fail(field="masklet", expected="a list of frames", got=masklets)
    count = len(masklets)
    number = int(total) if isinstance(total, int | float) and 0 < total < 1e9 else 0
    step = -(-number // count)
    if not number or -(-number // step) != count:
        expected = f"the frames of the video, of which {count} are annotated"
        raise fail(field="video_frame_count", expected=expected, got=total)
    return count, step


def _tracks(
    source: SourceFolder, file: Path, video: ForeignVideo, category: str
) -> list[ForeignTrack]:
    content = source.json(file, _MAX_JSON)
    fail = partial(DataError, file, video=video.name)
    for key, side in zip(("video_height", "video_width"), video.size, strict=True):
        if content.get(key, side) != side:
            expected = f"{side}, as the images"
            raise fail(field=key, expected=expected, got=content[key])
    frames = content["masklet"]
    ids = content.get("masklet_id")
    if not isinstance(ids, list) or not ids or len(set(map(repr, ids))) < len(ids):
        raise fail(field="masklet_id", expected="an id of each object", got=ids)
    count = len(ids)
    tracks = [ForeignTrack(category, False, []) for _ in range(count)]
    for k, masks in enumerate(frames):
        if not isinstance(masks, list) or len(masks) != count:
            expected = f"{count} masks, as masklet_id has ids"
            got = len(masks) if isinstance(masks, list) else shorten(masks)
            raise fail(field=f"masklet[{k}]", expected=expected, got=got)
        for n, (track, mask) in enumerate(zip(tracks, masks, strict=True)):
            here = partial(fail, annotation=ids[n])
            place = f"masklet[{k}][{n}]"
            track.masks.append(
                None
                if mask is None
                else convert(mask, video.size, partial(_at, here, place))
            )
    return tracks


def _at(fail: Fail, place: str, *, field: str, expected: str, got: object) -> DataError:
    inner = field.removeprefix("segmentation")
    return fail(field=f"{place}{inner}", expected=expected, got=got)

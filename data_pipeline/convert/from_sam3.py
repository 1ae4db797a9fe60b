"""Converts SAM 3 video output: an .npz file beside the image of each frame.

`Sam3VideoPredictor` returns arrays per frame without saving them; save them with
`numpy.savez_compressed(file, **response["outputs"])`. Reads `out_obj_ids` [N], the
identities, and `out_binary_masks` [N, H, W]. A run has one prompt, whose category is
given by `--category`.
"""

import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from data_pipeline.convert.foreign import (
    DetectedLayout,
    Foreign,
    ForeignLabel,
    ForeignTrack,
    ForeignVideo,
    encode,
    join_tracks,
)
from data_pipeline.convert.json_layout import show
from data_pipeline.convert.source_folder import (
    SourceFolder,
    image_size,
)
from data_pipeline.errors import DataError, Fail
from data_pipeline.file_names import IMAGE_SUFFIXES

IDS, MASKS = "out_obj_ids", "out_binary_masks"
LOOKED_FOR = f"images with an .npz of each beside it that has {IDS} and {MASKS} (SAM 3)"
_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, EOFError)
_MAX_BYTES = 2**31  # maximum bytes of an array


def find(source: SourceFolder, category: str) -> DetectedLayout | None:
    """Recognises folders of images and .npz files by the first .npz file."""
    for place in source.candidates("{split}", ""):
        if not place.is_dir():
            continue
        folders = [place, *source.folders(place)]
        folders = [folder for folder in folders if source.files(folder, ".npz")]
        if not folders:
            continue
        first = source.files(folders[0], ".npz")[0]
        if {IDS, MASKS} <= set(_names(source, first)):
            why = f"{show(source, first)} has {MASKS}"
            return DetectedLayout(
                "sam3", why, partial(_read, source, folders, category)
            )
    return None


def _names(source: SourceFolder, file: Path) -> list[str]:
    try:
        with zipfile.ZipFile(source.inside(file)) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except _DAMAGE as error:
        raise DataError(file, expected="an .npz file", got=str(error)) from error


def _read(source: SourceFolder, folders: list[Path], category: str) -> Foreign:
    videos, left_out = [], 0
    for folder in folders:
        images = source.files(folder, *IMAGE_SUFFIXES)
        stems = {file.stem for file in source.files(folder, ".npz")}
        kept = tuple(image for image in images if image.stem in stems)
        alone = sorted(stems - {image.stem for image in kept})
        if alone:
            expected = "an image of the same name beside it"
            raise DataError(folder / f"{alone[0]}.npz", expected=expected, got="none")
        left_out += len(images) - len(kept)
        inside = folder != source.root
        name = show(source, folder) if inside else source.root.resolve().name
        videos.append(ForeignVideo(name, kept, image_size(kept[0])))
    notes = (f"{left_out} images without an .npz file",) if left_out else ()

    def tracks(index: int) -> list[ForeignTrack]:
        video = videos[index]
        found = [
            (number, ForeignLabel(category, False, frame, mask))
            for frame, image in enumerate(video.files)
            for number, mask in _objects(source, image.with_suffix(".npz"), video)
        ]
        return join_tracks(found, video, partial(DataError, video.files[0].parent))

    return Foreign(tuple(videos), tracks, None, lambda: notes)


def _objects(
    source: SourceFolder, file: Path, video: ForeignVideo
) -> list[tuple[int, dict]]:
    """Reads identities and masks of a frame."""
    fail = partial(DataError, file, video=video.name)
    ids = _array(source, file, IDS, (None,), fail)
    masks = _array(source, file, MASKS, (len(ids), *video.size), fail)
    if ids.dtype.kind not in "iu":
        raise fail(field=IDS, expected="whole numbers", got=str(ids.dtype))
    if masks.dtype != bool and not np.isin(masks, (0, 1)).all():
        raise fail(field=MASKS, expected="true or false", got=f"{masks.dtype} numbers")
    encoded = [encode(mask.astype(bool)) for mask in masks]
    return [
        (int(k), run) for k, run in zip(ids, encoded, strict=True) if run is not None
    ]


def _array(
    source: SourceFolder,
    file: Path,
    name: str,
    shape: tuple[int | None, ...],
    fail: Fail,
) -> np.ndarray:
    """Reads an array of a file, checking its header before allocating memory.

    Raises:
      DataError: it is missing, damaged, or of another shape.
    """
    try:
        with (
            zipfile.ZipFile(source.inside(file)) as archive,
            archive.open(f"{name}.npy") as data,
        ):
            version = np.lib.format.read_magic(data)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            found, _, dtype = read(data)
            fits = len(found) == len(shape) and all(
                side in (None, own) for side, own in zip(shape, found, strict=True)
            )
            size = int(np.prod(found, dtype=object)) * dtype.itemsize
            if not fits or size > _MAX_BYTES or dtype.kind not in "biuf":
                shown = [("N" if side is None else side) for side in shape]
                expected = f"numbers {shown}, at most {_MAX_BYTES} bytes"
                raise fail(field=name, expected=expected, got=f"{dtype} {list(found)}")
            data.seek(0)
            return np.lib.format.read_array(data, allow_pickle=False)
    except DataError:
        raise
    except (*_DAMAGE, KeyError, ValueError) as error:
        got = " ".join(str(error).split())
        raise fail(field=name, expected="an array", got=got) from error

"""Converts YouTube-VIS and OVIS in their common folder layouts."""

from functools import partial
from pathlib import Path

from data_pipeline.convert.foreign import (
    DetectedLayout,
    Image,
    PreparedSplit,
    track_fields,
    video_entry,
)
from data_pipeline.convert.json_layout import annotation_files, image_folder, show
from data_pipeline.convert.source_folder import SourceFolder
from data_pipeline.datasets.ytvis_json import (
    AnnotatedTrack,
    Annotations,
    parse_annotations,
)
from vis_jax.formats.rle import compress_mask, plain_mask

LOOKED_FOR = (
    "a JSON file with a list 'videos' ({split}/instances.json, {split}.json,"
    " annotations_{split}.json, also in annotations/ or JPEGImages/)"
)


def find(source: SourceFolder) -> DetectedLayout | None:
    """Recognises the annotation file by its videos, the images by the first of them.

    Raises:
      DataError: a defect of the annotations; the images are nowhere.
    """
    for file, content in annotation_files(source, "videos"):
        if isinstance(content.get("images"), list):
            continue  # COCO with one entry for each frame
        parsed = parse_annotations(content, file)
        folder = image_folder(source, file, parsed.videos[0].file_names[0])
        why = f"{show(source, file)} has a list 'videos', {show(source, folder)}/ has"
        why += f" {parsed.videos[0].file_names[0]}"
        made = partial(_prepare, source, content, parsed, folder)
        return DetectedLayout("ytvis", why, made)
    return None


def _prepare(
    source: SourceFolder,
    content: dict,
    parsed: Annotations,
    folder: Path,
) -> PreparedSplit:
    """Compresses the masks of the annotations; ids and file names are kept."""
    videos, images, tracks = [], [], {}
    for video, its_tracks in zip(parsed.videos, parsed.tracks, strict=True):
        size = video.height, video.width
        videos.append(video_entry(video.video_id, video.name, size, video.file_names))
        for name in video.file_names:
            images.append(Image(source.inside(folder / name), name, size))
        for track in its_tracks:
            entry = content["annotations"][track.entry]
            tracks[track.entry] = _track_entry(entry, track, parsed, size)
    prepared = {
        "info": {"description": "YouTube-VIS format"},
        "licenses": [],
        "videos": videos,
        "categories": [
            {key: entry[key] for key in ("id", "name", "supercategory") if key in entry}
            for entry in content["categories"]
        ],
    }
    if content.get("annotations") is not None:
        prepared["annotations"] = [tracks[k] for k in sorted(tracks)]
    return PreparedSplit(prepared, tuple(images), ())


def _track_entry(
    entry: dict, track: AnnotatedTrack, parsed: Annotations, size: tuple[int, int]
) -> dict:
    height, width = size
    masks = [
        None
        if k < 0
        else plain_mask(compress_mask(parsed.runs, int(k), height=height, width=width))
        for k in track.mask_index
    ]
    ids = {key: entry[key] for key in ("id", "video_id", "category_id")}
    fields = ids | track_fields(masks, size, track.crowd)
    if entry.get("occlusion") is not None:
        fields["occlusion"] = entry["occlusion"]
    return fields

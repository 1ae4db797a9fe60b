"""Draws a contact sheet of a data set: a row of frames with masks per video."""

from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.checks.folder import Checked
from data_pipeline.datasets.ytvis import read_frame
from data_pipeline.errors import DataError
from vis_jax.formats.disk import replaced
from vis_jax.formats.rle import decode_mask
from vis_jax.visualize.draw import SHEET_COLOUR, contact_sheet, draw_frame

HEIGHT, WIDTH = 180, 320  # maximum pixels of a frame on the sheet
COLUMNS = 6  # frames per video


def check_sheet(path: str) -> Path:
    """Checks the path of `--contact_sheet`.

    Raises:
      ValueError: not a PNG, or its folder does not exist.
    """
    sheet = Path(path)
    if sheet.suffix.lower() != ".png" or sheet.is_dir():
        raise ValueError(f"--contact_sheet: expected a .png file, got {sheet}")
    if not sheet.parent.is_dir():
        raise ValueError(
            f"--contact_sheet: expected an existing folder, got {sheet.parent}"
        )
    return sheet


def write_sheet(file: Path, checked: Checked, num_videos: int) -> int:
    """Writes evenly spaced videos of the set, each as a row of evenly spaced frames.

    Frames that cannot be read are left grey.

    Args:
      file: PNG to write.
      checked: from `check_folder`.
      num_videos: maximum number of videos.

    Returns:
      The number of videos on the sheet; if 0, no sheet is written.
    """
    videos = _spread(len(checked.content.videos), num_videos)
    cells = [
        _cell(checked, index, frame)
        for index in videos
        for frame in _row(checked.content.videos[index].length)
    ]
    if not cells:
        return 0
    with replaced(file) as temporary:
        sheet = Image.fromarray(contact_sheet(cells, COLUMNS))
        sheet.save(temporary, format="PNG")
    return len(videos)


def _spread(length: int, number: int) -> list[int]:
    """Returns up to `number` evenly spaced indices in 0 .. length - 1."""
    number = min(number, length)
    return [k * (length - 1) // max(1, number - 1) for k in range(number)]


def _row(length: int) -> list[int | None]:
    """Returns the frames of a row; None where a video has too few."""
    frames: list[int | None] = [*_spread(length, COLUMNS)]
    return frames + [None] * (COLUMNS - len(frames))


def _cell(checked: Checked, index: int, frame: int | None) -> np.ndarray:
    """Draws a frame with masks, scaled and centred: uint8 [HEIGHT, WIDTH, 3]."""
    cell = np.full((HEIGHT, WIDTH, 3), SHEET_COLOUR, np.uint8)
    if frame is None:
        return cell
    video, layout = checked.content.videos[index], checked.layout
    try:
        path = layout.images / video.file_names[frame]
        pixels = read_frame(path, video, root=layout.root)
    except DataError:
        return cell
    scale = min(HEIGHT / video.height, WIDTH / video.width)
    size = max(1, round(video.width * scale)), max(1, round(video.height * scale))
    small = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    drawn = _draw(checked, index, frame, small)
    top, left = (HEIGHT - drawn.shape[0]) // 2, (WIDTH - drawn.shape[1]) // 2
    cell[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return cell


def _draw(checked: Checked, index: int, frame: int, image: np.ndarray) -> np.ndarray:
    """Draws the tracks of a frame on a resized copy of it."""
    content = checked.content
    video, tracks = content.videos[index], content.tracks[index]
    height, width = image.shape[:2]
    # Pixel centres of the small image in the large one.
    rows = ((np.arange(height) + 0.5) * video.height / height).astype(int)
    columns = ((np.arange(width) + 0.5) * video.width / width).astype(int)
    seen = [k for k, track in enumerate(tracks) if track.mask_index[frame] >= 0]
    masks = np.zeros((len(seen), height, width), bool)
    for mask, k in zip(masks, seen, strict=True):
        number = int(tracks[k].mask_index[frame])
        size = dict(height=video.height, width=video.width)
        mask[:] = decode_mask(content.runs, number, **size)[np.ix_(rows, columns)]
    return draw_frame(
        image,
        masks,
        [k + 1 for k in seen],
        labels=[tracks[k].label for k in seen],
        names=[category.name for category in content.categories],
        scores=None,
    )

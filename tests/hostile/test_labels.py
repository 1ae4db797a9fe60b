"""Labels as tools write them, which the readers apply or reject."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from data_pipeline.convert.prepare import prepare
from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.errors import DataError

HEIGHT, WIDTH = 48, 64
SHARP = dict(quality=100, subsampling=0)  # of JPEG
RED, BLUE = (220, 30, 30), (20, 60, 160)


def block(t: int) -> np.ndarray:
    """Returns the mask of a block of 14 x 12 pixels in frame t."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[6 + 2 * t : 18 + 2 * t, 4 + 3 * t : 18 + 3 * t] = True
    return mask


def corners(t: int) -> list[float]:
    return [4 + 3 * t, 6 + 2 * t, 18 + 3 * t, 18 + 2 * t]


def polygon(t: int) -> list[float]:
    x1, y1, x2, y2 = corners(t)
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def picture(mask: np.ndarray) -> Image.Image:
    """A red object on blue."""
    return Image.fromarray(np.where(mask[..., None], RED, BLUE).astype(np.uint8))


def write_frames(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for t, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        picture(block(t)).save(folder / name, **SHARP)


def prepared(tmp_path, split="train", **options):
    prepare(tmp_path / "in", tmp_path / "out", split, **options)
    return YouTubeVis(tmp_path / "out", split)


def masks_of(data: YouTubeVis, video: int = 0) -> np.ndarray:
    """Bool [M, T, H, W]."""
    one = data.videos[video]
    empty = np.zeros((one.height, one.width), bool)
    return np.array(
        [
            [empty if run is None else coco.decode(run).astype(bool) for run in track]
            for track in data.truth(video).segmentations
        ]
    )


def hits(data: YouTubeVis) -> float:
    """The share of the first track's pixels that are red in the frames."""
    frames = data.read_frames(0, np.arange(data.videos[0].length))
    red = frames[..., 0] > 128
    return float(red[masks_of(data)[0]].mean())


def write_xml(root, tracks: str, *, meta: str = "<size>4</size>", names=None) -> None:
    names = names or [f"frame_{t:06d}.png" for t in range(4)]
    write_frames(root / "in/images", names)
    meta = f"<meta><task>{meta}</task></meta>"
    text = f"<annotations><version>1.1</version>{meta}{tracks}</annotations>"
    (root / "in/annotations.xml").write_text(text)


def xml_box(frame: int, t: int, more: str = "") -> str:
    names = zip(("xtl", "ytl", "xbr", "ybr"), corners(t), strict=True)
    numbers = " ".join(f'{name}="{value}"' for name, value in names)
    return f'<box frame="{frame}" {numbers} {more}/>'


def xml_track(shapes: str, more: str = "") -> str:
    return f'<track id="0" label="block" {more}>{shapes}</track>'


# CVAT


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 180, 300.5, 360])
def test_a_turned_box_covers_the_object(tmp_path, degrees):
    """A stick of 36 x 8, turned clockwise about its centre."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    turn = np.radians(degrees)
    along = (x - 32) * np.cos(turn) + (y - 24) * np.sin(turn)
    across = (y - 24) * np.cos(turn) - (x - 32) * np.sin(turn)
    stick = (np.abs(along) < 18) & (np.abs(across) < 4)
    box = f'xtl="14" ytl="20" xbr="50" ybr="28" rotation="{degrees}"'
    write_xml(tmp_path, xml_track(f'<box frame="0" {box}/>'), meta="<size>4</size>")
    picture(stick).save(tmp_path / "in/images/frame_000000.png")
    mask = masks_of(prepared(tmp_path))[0, 0]
    assert (mask & stick).sum() / (mask | stick).sum() > 0.85
    assert stick[mask].mean() >= 0.9


def test_a_turned_polygon_is_refused(tmp_path):
    shape = '<polygon frame="0" points="4,6;10,6;10,18" rotation="20"/>'
    write_xml(tmp_path, xml_track(shape))
    with pytest.raises(DataError, match="frame 0, rotation: expected 0.*got 20"):
        prepared(tmp_path)


STEP = "<stop_frame>15</stop_frame><frame_filter>step=5</frame_filter>"


@pytest.mark.parametrize(
    ("meta", "numbers"),
    [
        ("<size>4</size><start_frame>0</start_frame>", range(4)),
        (f"<size>4</size><start_frame>0</start_frame>{STEP}", range(0, 20, 5)),
        ("<size>4</size><start_frame>7</start_frame>", range(7, 11)),
        ("<size>4</size><stop_frame>3</stop_frame>", range(4)),
        (f"<size>4</size>{STEP.replace('15', '19')}", range(0, 20, 5)),
        (STEP, range(0, 20, 5)),
        ("<start_frame>7</start_frame>", range(7, 11)),
        ("<frame_filter>step = 2</frame_filter>", range(3, 11, 2)),
        ("", range(1, 5)),  # nothing is said
    ],
)
def test_frames_have_the_numbers_of_the_images(tmp_path, meta, numbers):
    shapes = "".join(xml_box(number, t) for t, number in enumerate(numbers))
    names = [f"frame_{number:06d}.png" for number in numbers]
    write_xml(tmp_path, xml_track(shapes), meta=meta, names=names)
    assert hits(prepared(tmp_path)) == 1


@pytest.mark.parametrize(
    ("meta", "numbers"),
    [
        ("<size>4</size><start_frame>0</start_frame>", range(1, 5)),
        ("<size>5</size><start_frame>0</start_frame>", range(1, 5)),
        (f"<size>4</size>{STEP}", range(4)),
        ("<size>4</size><start_frame>7</start_frame>", range(4)),
        (STEP, range(4)),
        ("<stop_frame>3</stop_frame>", range(1, 5)),
        ("<stop_frame>2</stop_frame>", range(4)),
        ("<start_frame>7</start_frame>", range(4)),
        ("<frame_filter>step=2</frame_filter>", range(4)),
    ],
)
def test_numbers_of_other_frames_are_refused(tmp_path, meta, numbers):
    names = [f"{number:05d}.jpg" for number in numbers]
    write_xml(tmp_path, xml_track(xml_box(3, 3)), meta=meta, names=names)
    with pytest.raises(DataError, match=r"annotations.xml.*meta: expected images num"):
        prepared(tmp_path)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("<size>4</size><stop_frame>7</stop_frame>", "stop_frame: expected 3, .*got 7"),
        ("<size>9</size><stop_frame>3</stop_frame>", "stop_frame: expected 8, .*got 3"),
        (f"<size>16</size>{STEP}", "stop_frame: expected 75, .*steps of 5.*got 15"),
        (
            "<start_frame>4</start_frame><stop_frame>3</stop_frame>",
            "at least start_frame",
        ),
        ("<size>0</size>", "size: expected at least 1, got 0"),
        ("<size>many</size>", "size: expected a whole number, got many"),
        ("<stop_frame>-1</stop_frame>", "stop_frame: expected a whole number, got -1"),
        (
            "<frame_filter>step=0</frame_filter>",
            "frame_filter: expected step=N.*step=0",
        ),
        ("<frame_filter>every 5</frame_filter>", "frame_filter: .*got every 5"),
        ("<size>4</size><frame_filter>step=1;2</frame_filter>", "filter: .*step=1;2"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path, meta, message):
    write_xml(tmp_path, xml_track(xml_box(0, 0)), meta=meta)
    with pytest.raises(DataError, match=f"annotations.xml.*{message}"):
        prepared(tmp_path)


def test_annotations_of_another_size_are_refused(tmp_path):
    size = "<original_size><width>128</width><height>96</height></original_size>"
    write_xml(tmp_path, xml_track(xml_box(0, 0)), meta=f"<size>4</size>{size}")
    with pytest.raises(DataError, match=r"original_size: .*\(48, 64\), got \(96, 128"):
        prepared(tmp_path)


def halves() -> list[str]:
    """The left and right half of the block in all frames."""
    parts = ["", ""]
    for t in range(4):
        x1, y1, x2, y2 = corners(t)
        for k, (left, right) in enumerate([(x1, x1 + 6), (x1 + 8, x2)]):
            box = f'xtl="{left}" ytl="{y1}" xbr="{right}" ybr="{y2}"'
            parts[k] += f'<box frame="{t}" {box}/>'
    return parts


@pytest.mark.parametrize(("groups", "count"), [((1, 1), 1), ((1, 2), 2), ((0, 0), 2)])
def test_tracks_of_a_group_are_one_object(tmp_path, groups, count):
    pairs = zip(halves(), groups, strict=True)
    tracks = [xml_track(part, f'group_id="{g}"') for part, g in pairs]
    write_xml(tmp_path, "".join(tracks))
    masks = masks_of(prepared(tmp_path))
    assert len(masks) == count
    assert masks.sum() == 4 * 12 * 12


def test_a_group_has_one_label(tmp_path):
    tracks = [xml_track(part, 'group_id="1"') for part in halves()]
    write_xml(tmp_path, tracks[0] + tracks[1].replace("block", "other"))
    with pytest.raises(DataError, match="group_id: expected one label"):
        prepared(tmp_path)


def test_outside_behind_the_last_frame_shows_nothing(tmp_path):
    tracks = [
        xml_track(xml_box(t, t) + xml_box(t + 1, t, 'outside="1"')) for t in range(4)
    ]
    write_xml(tmp_path, "".join(tracks))
    seen = masks_of(prepared(tmp_path)).any((2, 3))
    np.testing.assert_array_equal(seen, np.eye(4, dtype=bool))


# labelme


def write_labelme(folder, points, kind="rectangle", *, exif=None):
    """Three frames; `points` gives those of the shape in frame t."""
    folder.mkdir(parents=True)
    for t in range(3):
        upright = picture(block(t))
        options: dict = dict(SHARP)
        if exif is not None:
            options["exif"] = exif_of(exif)
            upright = lay_down(upright, exif)
        upright.save(folder / f"{t}.jpg", **options)
        shape = dict(label="block", points=points(t), shape_type=kind, group_id=1)
        size = dict(imageHeight=HEIGHT, imageWidth=WIDTH)
        content = dict(shapes=[shape], imagePath=f"{t}.jpg", imageData=None, **size)
        (folder / f"{t}.json").write_text(json.dumps(content))


def exif_of(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def lay_down(upright: Image.Image, number: int) -> Image.Image:
    """The pixels that are stored with an Exif orientation."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[number]
    return upright if undo is None else upright.transpose(undo)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0), (0, 2)])
def test_rectangles_of_two_or_four_corners(tmp_path, order):
    def points(t):
        flat = np.reshape(polygon(t), (4, 2)).tolist()
        return [flat[k] for k in order]

    write_labelme(tmp_path / "in/clip", points)
    masks = masks_of(prepared(tmp_path))
    np.testing.assert_array_equal(masks[0], [block(t) for t in range(3)])


@pytest.mark.parametrize(
    "points",
    [
        [[4, 6], [18, 6], [18, 18]],
        [[4, 6], [18, 9], [18, 18], [4, 18]],
        [[4, 6], [4, 6], [18, 18], [18, 18]],
        [],
    ],
)
def test_other_rectangles_are_refused(tmp_path, points):
    write_labelme(tmp_path / "in/clip", lambda t: points)
    with pytest.raises(DataError, match="points: expected two corners, or the four"):
        prepared(tmp_path)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7, 8])
def test_upright_labels_meet_images_that_exif_turns(tmp_path, number):
    def points(t):
        return np.reshape(corners(t), (2, 2)).tolist()

    write_labelme(tmp_path / "in/clip", points, exif=number)
    data = prepared(tmp_path)
    assert (data.videos[0].height, data.videos[0].width) == (HEIGHT, WIDTH)
    assert hits(data) == 1
    with Image.open(data.path(0, 0)) as image:  # for other programs, too
        assert image.size == (WIDTH, HEIGHT)


# DAVIS


def write_davis(folder, ids):
    """Three frames with the same PNG."""
    for place in ("JPEGImages", "Annotations"):
        (folder / place / "480p/clip").mkdir(parents=True)
    for t in range(3):
        picture(block(t)).save(folder / f"JPEGImages/480p/clip/{t:05d}.jpg")
        Image.fromarray(ids).save(folder / f"Annotations/480p/clip/{t:05d}.png")


@pytest.mark.parametrize("blur", [1, 2, 3])
def test_grey_levels_along_outlines_are_no_objects(tmp_path, blur):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = np.hypot(x - 32, y - 24)
    soft = np.clip((12 - distance) / blur + 0.5, 0, 1) * 255
    write_davis(tmp_path / "in", soft.round().astype(np.uint8))
    message = r"clip/00000.png: expected one value .* got a soft mask: \d+ grey"
    with pytest.raises(DataError, match=message):
        prepared(tmp_path)


def test_small_and_touching_objects_are_no_outlines(tmp_path):
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[10:20, 10:20], ids[10:20, 20:30] = 1, 2  # side by side
    ids[30:32, 5:9], ids[35, 5], ids[40:42, 40:42] = 3, 4, 5  # apart, and tiny
    ids[ids == 0] = np.where(np.arange(WIDTH) > 60, 255, 0)[None].repeat(HEIGHT, 0)[
        ids == 0
    ]  # not labelled
    write_davis(tmp_path / "in", ids)
    assert len(masks_of(prepared(tmp_path))) == 5

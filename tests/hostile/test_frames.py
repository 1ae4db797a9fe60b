"""All readers see the same upright pixels, whatever the format of a frame."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipeline.checks.folder import check_folder
from data_pipeline.convert.prepare import prepare
from data_pipeline.datasets.by_name import make_dataset
from data_pipeline.datasets.ytvis import YouTubeVis
from data_pipeline.errors import DataError
from data_pipeline.pipeline import train_batches
from data_pipeline.write.tfds_builder import build
from tests.hostile.test_labels import (
    HEIGHT,
    SHARP,
    WIDTH,
    block,
    exif_of,
    lay_down,
    picture,
    polygon,
)
from tests.recipes import data_settings

LENGTH = 2


def frame(t: int) -> Image.Image:
    return picture(block(t))


def save(name, mode="RGB", **options):
    """Returns a function that writes a frame, and the name of its file."""
    return name, lambda path, t: frame(t).convert(mode).save(path, **SHARP, **options)


def turned(name, number):
    """A frame stored with an Exif orientation."""

    def write(path, t):
        lay_down(frame(t), number).save(path, exif=exif_of(number), **SHARP)

    return name, write


def deep_png(path, t):
    """16 bits a channel, in colour: the high bytes are the picture."""
    rows = np.asarray(frame(t)).astype(">u2") * 256 + 77
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


READ = {
    "jpeg": save("{}.jpg"),
    "jpeg of grey": save("{}.jpg", "L"),
    "jpeg for print": save("{}.jpg", "CMYK"),
    "bmp": save("{}.bmp"),
    "bmp named jpg": save("{}.jpg", format="BMP"),
    "tiff": save("{}.tiff"),
    "webp": save("{}.webp", lossless=True),
    "png": save("{}.png"),
    "png with alpha": save("{}.png", "RGBA"),
    "png with a palette": save("{}.png", "P"),
    "png of 16 bits in colour": ("{}.png", deep_png),
    **{f"jpeg, Exif {k}": turned("{}.jpg", k) for k in range(1, 9)},
    "png, Exif 6": turned("{}.png", 6),
    "tiff, Exif 3": turned("{}.tiff", 3),
}


def grey16(path, t):
    grey = np.asarray(frame(t).convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(path)


def animation(path, t):
    frame(t).save(path, save_all=True, append_images=[frame(t + 1)], format="PNG")


def eps(path, t):
    """Pillow would start Ghostscript for it."""
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n%%EOF\n"
    path.write_text(text)


def pipe(path, t):
    os.mkfifo(path)


def device(path, t):
    path.symlink_to("/dev/zero")


def outside(path, t):
    other = path.parents[3] / f"other_{t}.png"
    frame(t).save(other)
    path.symlink_to(other)


REFUSED = {
    "grey of 16 bits": ("{}.png", grey16, "expected 8 bits a channel, got mode I;16"),
    "tiff of 16 bits": ("{}.tif", grey16, "expected 8 bits a channel, got mode I;16"),
    "an animation": ("{}.png", animation, "expected a file with one image, got one"),
    "eps named jpg": ("{}.jpg", eps, "expected a whole image"),
    "a pipe": ("{}.jpg", pipe, "expected a regular file"),
    "a device": ("{}.jpg", device, "expected a path that stays inside"),
    "a link that leads out": ("{}.png", outside, "expected a path that stays inside"),
}


def write_folder(root, *videos):
    """A folder with videos, each with a category of its own.

    Args:
      videos: of each, how its files are named and what writes them.
    """
    tracks = dict(iscrowd=0, areas=[14 * 12] * LENGTH)
    tracks |= dict(segmentations=[[polygon(t)] for t in range(LENGTH)])
    size = dict(height=HEIGHT, width=WIDTH, length=LENGTH)
    content = dict(videos=[], categories=[], annotations=[])
    for key, (name, write) in enumerate(videos, start=1):
        (root / f"JPEGImages/v{key}").mkdir(parents=True)
        names = [f"v{key}/{name.format(t)}" for t in range(LENGTH)]
        for t, one in enumerate(names):
            write(root / "JPEGImages" / one, t)
        content["videos"].append(dict(id=key, name=f"v{key}", file_names=names, **size))
        content["categories"].append(dict(id=key, name=f"block {key}"))
        content["annotations"].append(
            tracks | dict(id=key, video_id=key, category_id=key)
        )
    (root / "instances.json").write_text(json.dumps(content))
    return root


def training_frames(root, videos=1):
    """Frames of the videos as training has them: [V, T, H, W, 3].

    The category of the object says which video it is, and its mask which frame.
    """
    config = data_settings(
        name="folder", root=str(root), frames=1, frame_range=0, short_side=(HEIGHT,),
        canvas=(HEIGHT, WIDTH), flip=0.0, batch_size=1, instances=1,
    )  # fmt: skip
    batches = train_batches(make_dataset(config), config, seed=0, start_step=0)
    found = {}
    for _ in range(40 * videos):
        batch = next(batches)
        mask = batch["masks"][0, 0, 0]
        t = next(t for t in range(LENGTH) if (mask == block(t)).all())
        found[batch["labels"][0, 0], t] = batch["images"][0, 0]
        if len(found) == LENGTH * videos:
            break
    return np.stack(
        [[found[video, t] for t in range(LENGTH)] for video in range(videos)]
    )


def read_frames(root):
    """Frames of the videos of a folder as its reader has them: [V, T, H, W, 3]."""
    dataset, frames = YouTubeVis(root, "train"), np.arange(LENGTH)
    return np.stack(
        [dataset.read_frames(video, frames) for video in range(len(dataset.videos))]
    )


def problems(root):
    """The defects of a folder."""
    found = []
    check_folder(root, "train", defect=found.append, warning=found.append)
    return [str(error) for error in found]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """One folder with a video of each kind, as each reader sees it."""
    folder = tmp_path_factory.mktemp("kinds")
    root = write_folder(folder / "in", *READ.values())
    assert problems(root) == []
    build(root, "train", folder / "packed")
    prepare(root, folder / "out", "train", layout="ytvis")
    return {
        "reader": read_frames(root),
        "training": training_frames(root, len(READ)),
        "packed": training_frames(folder / "packed", len(READ)),
        "prepared": read_frames(folder / "out"),
    }


@pytest.mark.parametrize("kind", READ)
def test_check_reader_training_and_packing_see_the_same(seen, kind):
    index = list(READ).index(kind)
    frames = seen["reader"][index]
    grey = np.asarray(frames[0].astype(int))[block(0)].mean(0)
    assert abs(grey - np.asarray(frame(0))[6, 4]).max() < 8 or "grey" in kind
    np.testing.assert_array_equal(seen["training"][index], frames)
    np.testing.assert_array_equal(seen["packed"][index], frames)
    assert abs(seen["prepared"][index].astype(int) - frames).mean() < 3


@pytest.mark.parametrize("kind", REFUSED)
def test_check_reader_training_and_packing_refuse_the_same(tmp_path, kind):
    name, write, message = REFUSED[kind]

    def write_second(path, t):
        write(path, t) if t else frame(t).save(path, "PNG")

    root = write_folder(tmp_path / "in", (name, write_second))
    file = str(root / "JPEGImages/v1" / name.format(1))
    found = problems(root)
    assert len(found) == 1
    assert file in found[0] and message in found[0]
    for use in (
        lambda: YouTubeVis(root, "train").read_frames(0, np.arange(LENGTH)),
        lambda: training_frames(root),
        lambda: build(root, "train", tmp_path / "packed"),
        lambda: prepare(root, tmp_path / "out", "train", layout="ytvis"),
    ):
        with pytest.raises(DataError) as caught:
            use()
        assert message in str(caught.value)
        assert name.format("")[1:] in str(caught.value)
    assert not (tmp_path / "packed").exists() or not list(tmp_path.glob("packed/*"))


def test_a_folder_may_be_a_link_itself(tmp_path):
    root = write_folder(tmp_path / "in", READ["png"])
    (tmp_path / "link").symlink_to(root)
    assert problems(tmp_path / "link") == []


@pytest.mark.parametrize("name", ["instances.json", "JPEGImages"])
def test_what_leads_out_of_the_folder_is_refused(tmp_path, name):
    root = write_folder(tmp_path / "in", READ["png"])
    (root / name).rename(tmp_path / name)
    (root / name).symlink_to(tmp_path / name)
    with pytest.raises(DataError, match="expected a path that stays inside"):
        problems(root)
    with pytest.raises(DataError, match="expected a path that stays inside"):
        YouTubeVis(root, "train")

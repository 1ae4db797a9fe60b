"""Every block of code in the README and the first pages runs, on small data.

Recipes are shrunk as `:debug` does, a camera is a folder of frames, what would take
long ends once its words are known to be good, and the smallest recipe is trained.
"""

import json
import re
import shlex
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vis_jax
from tests.command_line import call, check_words
from tests.commands.folder import write_folder
from tests.commands.official import official_weights, write_pickle
from tests.recipes import recipe
from tests.saved_runs import write_run
from tests.test_links import BLOCK
from vis_jax import api, checkpoints, tracking
from vis_jax.commands import compare, parts, sweep, train
from vis_jax.params import flatten
from vis_jax.predict.sinks import VideoSink

ROOT = Path(__file__).parents[1]
SMALL_VIDEOS = ("--num_videos=2", "--height=64", "--width=96", "--length=4")
# In place of every recipe, so that it is compiled once.
TRAINED = "configs/mask_track_rcnn_shapes.py:debug"
# Makes TRAINED, which draws its videos, read a folder instead.
OWN = {"data.name": "folder", "data.root": "videos", "test.split": "train"}


def blocks(name):
    return BLOCK.findall((ROOT / name).read_text())


def shell_lines(text):
    """The commands of a block, without comments."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The files that the pages speak of."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "configs").symlink_to(ROOT / "configs")
    labels = write_folder(folder / "labels")
    shutil.copy(labels / "instances.json", folder)
    video = next(path for path in (labels / "JPEGImages").iterdir() if path.is_dir())
    frames = [np.asarray(Image.open(path)) for path in sorted(video.glob("*.jpg"))]
    height, width = frames[0].shape[:2]
    with VideoSink(
        folder / "clip.mp4", fps=Fraction(5), height=height, width=width
    ) as sink:
        for frame in frames:
            sink.write(frame)
    shutil.copytree(video, folder / "camera")
    write_run(folder / "runs/mask_track", "mask_track_rcnn_shapes")
    # In place of the weights that come along, so that nothing larger is compiled.
    vis_jax.load(folder / "runs/mask_track").save_hub(folder / "along/shapes")
    (folder / "runs/mask_track/metrics.jsonl").write_text(
        '{"step": 1, "time": 0.0, "train/loss": 2.5}\n'
    )
    for name in ("r50", "mask_track_rcnn", "other"):
        shutil.copytree(folder / "runs/mask_track", folder / "runs" / name)
    shutil.copy(folder / "clip.mp4", folder / "video.mp4")
    for name in ("results.json", "ours.json", "theirs.json"):
        (folder / name).write_text("[]")
    return folder


@pytest.fixture
def page(prepared, tmp_path, monkeypatch):
    """A folder of its own for each page, as the current one."""
    folder = shutil.copytree(prepared, tmp_path / "page", symlinks=True)
    monkeypatch.chdir(folder)
    opened, trained = tracking.open_source, vis_jax.train

    def open_source(source):
        return opened("camera" if source == "camera:0" else source)

    def train_small(config, workdir, settings=None):
        api.read_settings_of(config, settings or {})
        own = OWN if settings else {}
        trained(TRAINED, workdir, own | {"num_steps": 1, "test.videos": 1})

    monkeypatch.setattr(checkpoints, "_FOLDER", folder / "along")
    monkeypatch.setattr(tracking, "open_source", open_source)
    monkeypatch.setattr(api, "train", train_small)
    return folder


# A file that the last command of each page leaves.
PAGES = {
    "README.md": "out/video.json",
    "docs/quickstart.md": "out/video.json",
    "docs/comparing.md": "curves/curves.png",
}


@pytest.mark.parametrize("name", PAGES)
def test_every_block_runs(name, page):
    found, names, kinds = blocks(name), {}, []
    for kind, text in found:
        kinds.append(kind)
        if kind == "python":
            exec(compile(text, name, "exec"), names)
            continue
        assert kind == "", f"{name}: a block of {kind}"
        for line in shell_lines(text):
            run_line(line)
    assert "python" in kinds and "" in kinds
    left = page / PAGES[name]
    assert left.suffix != ".json" or json.loads(left.read_text())["videos"]
    assert left.stat().st_size


def test_the_first_page_of_the_site_shows_what_other_pages_run():
    text = "".join((ROOT / name).read_text() for name in PAGES)
    found = blocks("docs/index.md")
    assert len(found) == 2
    for kind, code in found:
        assert f"```{kind}\n{code}" in text


def run_line(line):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), line
        return
    head = ["vis-jax"] if words[0] == "vis-jax" else ["python", "-m", "vis_jax.main"]
    assert words[: len(head)] == head, line
    words = words[len(head) :]
    words = shrunk(words)
    if words[0] in ("compare", "sweep"):
        check_words({"compare": compare, "sweep": sweep}[words[0]], words[1:])
        return
    if words[0].startswith("--") and "--dry_run" not in words:
        check_words(train, words)
        return
    outcome = call(*words)
    assert outcome.code == 0, f"{line}: {outcome.err}"


def shrunk(words):
    """The command for small data."""
    words = [
        f"{word}:debug" if word.startswith("configs/") else word
        for word in words
        if not word.startswith("--config.data.root=/data")
    ]
    if words[:2] == ["data", "make_shapes"]:
        return [*words, *SMALL_VIDEOS]
    if words[0] in ("configs", "doctor"):
        return words
    if words[0] == "convert":
        write_weights(Path(words[words.index("--source") + 1]))
        return words
    if words[0] == "evaluate":
        return [*words, "--config.test.videos=1"]
    if words[0] == "predict":
        return [*words, "--overwrite"]  # what a block before has written
    return [*words, *owned(words)]


def owned(words):
    """Flags that give a `:debug` recipe the folder which the page names."""
    if not any(word.startswith("--config.data.root=") for word in words):
        return []
    return [f"--config.{name}={value}" for name, value in OWN.items()]


def write_weights(path):
    """Published weights of the kind that `convert` reads."""
    system = parts.build_system(recipe("mask2former_vis_r50"))
    variables = flatten(parts.shapes_of(system))
    shapes = {name: leaf.shape for name, leaf in variables.items()}
    write_pickle(path, official_weights(shapes, classes=81))
